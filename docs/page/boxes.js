"use strict";
// The boxes of an answer, on the picture and in the list, and the heatmap of the one looked at.

const at = (id) => document.getElementById(id);

const Boxes = (() => {
  // As BOXES and TOGETHER in handlers/render.py: by label, in turn.
  const COLOURS = "#4cc9f0 #b8f25a #ffd166 #ff6b9d #c8a2ff #5af2c8 #ff9f5a #8ab4ff".split(" ");
  const TOGETHER = "#ffffff";
  const KEPT = 24; // drawn heatmaps, of some megabytes each

  let items = []; // for each explanation {explanation, text, row, box}
  let pixels = null; // the picture's (ImageData)
  let looks = {}; // the items that are pointed at, have the keyboard's focus, were clicked
  let active = null; // one of these
  const drawings = new Map(); // promises of heatmaps, by item

  function clear() {
    [items, looks] = [[], {}];
    drawings.clear();
    at("list").replaceChildren();
    at("boxes").replaceChildren();
    for (const id of ["none", "notes", "legend"]) at(id).hidden = true;
    look();
  }

  // picture: its pixels (ImageData).
  function show(answer, picture) {
    clear();
    pixels = picture;
    const { explanations } = answer;
    const several = new Set(explanations.map(({ layer }) => layer)).size > 1;
    items = explanations.map((each) => item(each, answer.picture, several));
    items.forEach(({ row, box }, place) => {
      const line = document.createElement("li");
      line.append(row);
      at("list").append(line);
      at("boxes").append(box);
      row.tabIndex = box.tabIndex = place ? -1 : 0; // one stop each; the arrow keys go on
    });
    at("legend").hidden = !items.length;
    at("none").hidden = items.length > 0;
    at("none").textContent =
      `The detector reports no box that scores ${answer.request.score_threshold} or more. ` +
      "A lower “least score” shows weaker ones.";
    const notes = noted(answer);
    at("notes").textContent = notes.join(" ");
    at("notes").hidden = !notes.length;
  }

  function noted({ picture, omitted_heatmaps: bare, omitted_explanations: gone, trimmed }) {
    const notes = [];
    if (bare) {
      const boxes = bare === 1 ? "The weakest box has" : `The ${bare} weakest boxes have`;
      const left = gone ? `, and ${gone} of them are not shown at all` : "";
      notes.push(`${boxes} no heatmap${left}: the answer would have been too large.`);
    }
    for (const [name, value] of Object.entries(trimmed)) {
      notes.push(`There was time for ${name} = ${value} only.`);
    }
    const { width, height } = pixels;
    if (Math.abs(width * picture.height - height * picture.width) > 2 * Math.max(width, height)) {
      notes.push("The server sees the picture in other proportions than this browser does.");
    }
    return notes;
  }

  function item(explanation, picture, several) {
    const { box, category, label, layer, outcome, score, together } = explanation;
    const name = together.length ? `${together.length} boxes together` : category;
    const text = `${name} ${shownScore(score)}`;
    const colour = together.length ? TOGETHER : COLOURS[Math.max(0, label - 1) % COLOURS.length];
    const [x1, y1, x2, y2] = box;

    const onPicture = button("box", colour);
    onPicture.setAttribute("aria-label", text);
    onPicture.append(element("span", text));
    onPicture.classList.toggle("dropped", !outcome.startsWith("reported"));
    const high = y1 < 0.08 * picture.height; // no room for the caption above it
    const deep = y2 > 0.92 * picture.height;
    if (high) onPicture.classList.add(deep ? "inside" : "below");
    onPicture.classList.toggle("right", x1 > 0.7 * picture.width);
    const percent = (value, side) => `${(100 * value) / side}%`;
    Object.assign(onPicture.style, {
      left: percent(x1, picture.width),
      top: percent(y1, picture.height),
      width: percent(x2 - x1, picture.width),
      height: percent(y2 - y1, picture.height),
      // The smaller ones on top, or they could not be pointed at.
      zIndex: Math.round(900 * (1 - ((x2 - x1) * (y2 - y1)) / (picture.width * picture.height))),
    });

    const row = button("row", colour);
    const place = `x ${Math.round(x1)} to ${Math.round(x2)}, y ${Math.round(y1)} to ${Math.round(y2)}`;
    const details = [place];
    if (several) details.unshift(layer);
    if (outcome !== "reported") details.push(outcome);
    row.append(element("i"), element("b", name), element("span", shownScore(score)));
    row.append(element("small", details.join("; ")));

    const made = { explanation, text, row, box: onPicture };
    for (const part of [row, onPicture]) listen(part, made);
    return made;
  }

  function button(kind, colour) {
    const made = element("button");
    made.type = "button";
    made.className = kind;
    made.style.setProperty("--colour", colour);
    made.setAttribute("aria-pressed", "false");
    return made;
  }

  function element(kind, text = "") {
    return Object.assign(document.createElement(kind), { textContent: text });
  }

  // Cut, not rounded, as everywhere in Whybox.
  function shownScore(score) {
    if (score > 0 && score < 0.001) return "<0.001";
    const digits = score >= 0.1 ? 2 : 3;
    return (Math.floor(score * 10 ** digits) / 10 ** digits).toFixed(digits);
  }

  function listen(part, own) {
    const set = (kind, value) => () => {
      looks[kind] = value;
      look();
    };
    part.addEventListener("pointerenter", set("pointed", own));
    part.addEventListener("pointerleave", set("pointed", null));
    // A click gives focus, too; but it is the click that counts then.
    part.addEventListener("focus", () => {
      if (part.matches(":focus-visible")) set("focused", own)();
    });
    part.addEventListener("blur", set("focused", null));
    part.addEventListener("click", () => set("clicked", looks.clicked === own ? null : own)());
    part.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
      const next = step && items[items.indexOf(own) + step];
      if (event.key === "Escape") set("clicked", null)();
      if (!next) return;
      event.preventDefault();
      const kind = part === own.row ? "row" : "box";
      part.tabIndex = -1;
      next[kind].tabIndex = 0;
      next[kind].focus();
    });
  }

  // Shows what is looked at now.
  function look() {
    const before = active;
    active = looks.pointed ?? looks.focused ?? looks.clicked ?? null;
    for (const each of items) {
      for (const part of [each.row, each.box]) {
        part.classList.toggle("active", each === active);
        part.setAttribute("aria-pressed", String(each === looks.clicked));
      }
    }
    at("boxes").classList.toggle("showing", active !== null);
    if (active !== before || !active) paint(active);
  }

  async function paint(own) {
    const heat = at("heat");
    heat.hidden = true;
    at("caption").textContent = "";
    if (!own) return;
    const { method, target, layer, level, heatmap } = own.explanation;
    at("caption").textContent = `${own.text}: its heatmap was left out of the answer.`;
    if (!heatmap) return;
    const { image, flat } = await drawing(own);
    if (own !== active) return; // another one meanwhile
    heat.getContext("2d").putImageData(image, 0, 0);
    heat.setAttribute("aria-label", `The heatmap of ${own.text}`);
    heat.hidden = false;
    const range = [heatmap.min, heatmap.max].map((value) => Number(value.toPrecision(3)));
    const where = layer === "emitting" ? `${layer} (feature map ${level})` : layer;
    at("caption").textContent =
      `${own.text}: method ${method}, target ${target}, layer ${where}, ` +
      `${heatmap.width} × ${heatmap.height} cells from ${range[0]} to ${range[1]}.` +
      (flat ? " No heat: it is the same everywhere that is shown." : "");
  }

  function drawing(own) {
    if (!drawings.has(own)) {
      if (drawings.size >= KEPT) drawings.delete(drawings.keys().next().value);
      drawings.set(own, Heat.drawn(own.explanation, pixels));
    }
    return drawings.get(own);
  }

  at("scale").style.background = Heat.gradient;
  return { clear, show };
})();
