"use strict";
// The large view of one picture: its boxes as a list, and all that is known of the chosen one.

const Large = (() => {
  const at = (name) => document.getElementById(name);
  const dialog = at("large");
  const { element } = Frames;

  let hit = null; // what is shown, as Filters has hits
  let chosen = null; // its item with the heatmap
  let made = null; // the frame
  let rows = new Map(); // the list's buttons, by item
  let told = null; // {onMove(step), onChange(picture, item), onClose(), onTrouble(error)}

  // item: the one chosen, null for the first.
  async function show(asked, item, callbacks) {
    [hit, told] = [asked, callbacks];
    const { picture, items } = hit;
    at("large-title").replaceChildren(element("bdi", "", picture.shown));
    at("large-key").textContent = picture.shown;
    at("large-key").dir = "ltr";
    const place = `shards/${String(picture.shard).padStart(5, "0")}/detections.parquet`;
    at("large-rows").href = `../${place}`;
    at("large-rows").textContent = place;
    at("copied").textContent = "";
    made = Frames.make(picture, items, {
      captions: true,
      onLook: (looked) => paint(looked ?? chosen),
      onOpen: choose,
    });
    for (const button of made.buttons.values()) button.tabIndex = -1; // the list is the way there
    at("large-stage").replaceChildren(made.frame);
    rows = new Map(items.map((each) => [each, row(each)]));
    at("large-list").replaceChildren(...[...rows.values()].map((button) => {
      const line = element("li");
      line.append(button);
      return line;
    }));
    at("boxes-title").textContent = items.length ? "Boxes" : "Nothing was detected";
    if (!dialog.open) dialog.showModal();
    choose(item ?? items[0] ?? null);
    dialog.scrollTop = 0;
    try {
      const data = await whybox.picture(picture.rank);
      if (picture === hit.picture) made.fill(data);
    } catch (error) {
      told.onTrouble(error);
    }
  }

  function row(item) {
    const several = new Set(hit.items.map(({ setting }) => setting)).size > 1;
    const button = element("button", "row");
    button.type = "button";
    button.style.setProperty("--colour", Frames.colour(item));
    const details = [`energy in the box ${item.energy.toFixed(2)}`];
    if (several) details.push(item.setting);
    if (item.outcome !== "reported") details.push(item.outcome);
    button.append(element("i"), element("b", "", item.category));
    button.append(element("span", "", Frames.shownScore(item.score)));
    button.append(element("small", "", details.join("; ")));
    for (const { flag } of item.findings) button.append(element("small", "flag", flag));
    button.addEventListener("click", () => choose(item));
    button.addEventListener("pointerenter", () => paint(item));
    button.addEventListener("pointerleave", () => paint(chosen));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      const next = step && hit.items[hit.items.indexOf(item) + step];
      if (!next) return;
      event.preventDefault();
      choose(next);
      rows.get(next).focus();
    });
    return button;
  }

  function choose(item) {
    chosen = item;
    for (const [each, button] of rows) {
      button.setAttribute("aria-pressed", String(each === chosen));
      button.tabIndex = each === chosen ? 0 : -1; // one stop; the arrow keys go on
    }
    rows.get(chosen)?.scrollIntoView({ block: "nearest" });
    paint(chosen);
    facts();
    told.onChange(hit.picture, chosen);
  }

  function paint(item) {
    made.show(item, at("large-heat").checked);
  }

  // What is known of the chosen box, and what was found about it and its picture.
  function facts() {
    const parts = [];
    const found = [...(chosen?.findings ?? []), ...hit.picture.whole];
    if (found.length) {
      const list = element("ul", "findings");
      for (const each of found) {
        const line = element("li");
        line.append(element("strong", "", each.flag), ` ${each.says} `);
        const group = each.group ? `, group ${each.group}` : "";
        line.append(element("span", "faint", `${each.part}, severity ${each.severity.toFixed(2)}${group}`));
        list.append(line);
      }
      parts.push(element("h3", "", "Findings"), list);
    }
    if (chosen) {
      const [x1, y1, x2, y2] = chosen.box.map((edge) => Math.round(edge));
      const list = element("dl", "facts");
      for (const [name, value] of [
        ["Score", Frames.shownScore(chosen.score)],
        ["Energy in the box", chosen.energy.toFixed(2)],
        ["Box", `x ${x1} to ${x2}, y ${y1} to ${y2}`],
        ["Row", `index ${chosen.index}`],
        ["Method, target, layer", chosen.setting],
        ["Feature map", chosen.level],
        ["Outcome", chosen.outcome],
      ]) {
        const pair = element("div");
        pair.append(element("dt", "", name), element("dd", "", value));
        list.append(pair);
      }
      parts.push(element("h3", "", Frames.title(chosen)), list);
    }
    at("large-facts").replaceChildren(...parts);
    at("large-link").href = Filters.format({
      ...Filters.NOTHING,
      picture: hit.picture.key,
      box: chosen ? String(chosen.index) : "",
    });
  }

  async function copy() {
    try {
      await navigator.clipboard.writeText(hit.picture.key);
      at("copied").textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(at("large-key"));
      at("copied").textContent = "The browser does not allow it; the key is selected, press Ctrl+C.";
    }
  }

  function close() {
    if (dialog.open) dialog.close();
  }

  for (const [name, step] of [["large-back", -1], ["large-on", 1]]) {
    at(name).addEventListener("click", () => told.onMove(step));
  }
  at("large-close").addEventListener("click", close);
  at("copy").addEventListener("click", copy);
  at("large-heat").addEventListener("change", () => paint(chosen));
  at("scale").style.background = Heat.gradient;
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step && !event.altKey && !event.ctrlKey && !event.metaKey) told.onMove(step);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) close(); // beside it
  });
  dialog.addEventListener("close", () => told.onClose());

  return { close, show };
})();
