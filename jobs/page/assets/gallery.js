"use strict";
// The gallery: what a person asks for, a page of cards, and the large view, all by the address.

(() => {
  const at = (name) => document.getElementById(name);
  const PAGE = 24; // cards
  const FIELDS = ["flag", "category", "setting", "group", "low", "high", "text", "order"];

  let meta = null;
  let pictures = []; // as Filters has them, the worst first
  let hits = [];
  let state = { ...Filters.NOTHING };
  let complete = false;

  function trouble(error) {
    at("trouble").textContent = error.message;
    at("trouble").hidden = false;
  }

  function option(value, text) {
    const made = document.createElement("option");
    [made.value, made.textContent] = [value, text];
    return made;
  }

  function fillChoices() {
    const flags = [option("", "all pictures")];
    if (meta.flags.length) flags.push(option(Filters.FLAGGED, "any finding"));
    at("flag").replaceChildren(...flags, ...[...meta.flags].sort().map((each) => option(each, each)));
    for (const [name, all, values] of [
      ["category", "all categories", meta.categories],
      ["setting", "all", meta.settings],
      ["group", "all groups", meta.groups.filter((each) => each)],
    ]) {
      const sorted = [...values].sort();
      at(name).replaceChildren(option("", all), ...sorted.map((each) => option(each, each)));
    }
    at("group-part").hidden = !meta.groups.some((each) => each);
  }

  function fillForm() {
    for (const name of FIELDS) if (at(name).value !== state[name]) at(name).value = state[name];
    at("heat").checked = state.heat !== "";
    at("reset").hidden = !Filters.asked(state);
  }

  const pages = () => Math.max(1, Math.ceil(hits.length / PAGE));
  const page = () => Math.min(pages(), Math.max(1, Number(state.page) || 1));

  // Draws what `state` asks for.
  function show() {
    hits = Filters.hits(pictures, state);
    fillForm();
    showPage();
  }

  function showPage() {
    const first = (page() - 1) * PAGE;
    const shown = hits.slice(first, first + PAGE);
    const several = meta.settings.length > 1;
    Cards.show(shown, { settings: several, heated: state.heat !== "", onOpen: open, onTrouble: trouble });
    at("hits").textContent = said(first, shown.length);
    at("pages").hidden = pages() < 2;
    at("page").textContent = `Page ${page()} of ${pages()}`;
    at("back").disabled = page() <= 1;
    at("on").disabled = page() >= pages();
  }

  function said(first, number) {
    const ofAll = complete ? meta.pictures : `${pictures.length} read so far`;
    if (!hits.length) {
      return Filters.asked(state) && meta.pictures ? "No picture is like that." : "There are no pictures.";
    }
    const boxes = new Set();
    for (const { picture, items } of hits) {
      for (const { index } of items) boxes.add(`${picture.rank}/${index}`);
    }
    const counted = (count, one, several) => `${count.toLocaleString("en")} ${count === 1 ? one : several}`;
    const what = Filters.asked(state)
      ? `${counted(hits.length, "picture", "pictures")} of ${ofAll.toLocaleString("en")}`
      : counted(hits.length, "picture", "pictures");
    const range = pages() > 1 ? `; these are ${first + 1} to ${first + number}` : "";
    return `${what} with ${counted(boxes.size, "box", "boxes")}${range}.`;
  }

  function remember() {
    history.replaceState(null, "", Filters.format(state));
  }

  function change(values) {
    state = { ...state, page: "1", ...values };
    remember();
    show();
  }

  function turn(step) {
    state = { ...state, page: String(page() + step) };
    remember();
    showPage();
    at("gallery").scrollIntoView();
    Cards.focus();
  }

  function open(hit, item) {
    Large.show(hit, item, {
      onMove: (step) => {
        const next = hits[hits.indexOf(hit) + step];
        if (next) open(next, null);
      },
      onChange: (picture, chosen) => {
        state = { ...state, picture: picture.key, box: chosen ? String(chosen.index) : "" };
        remember();
      },
      onClose: () => {
        state = { ...state, picture: "", box: "" };
        remember();
      },
      onTrouble: trouble,
    });
  }

  // The picture that the address names; whatever else is asked for, it is shown.
  function openNamed() {
    if (!state.picture) return Large.close();
    const named = pictures.find(({ key }) => key === state.picture);
    if (!named) {
      if (complete) trouble(new Error(`The gallery has no picture “${state.picture}”; its rows are in the tables.`));
      return undefined;
    }
    const hit = hits.find(({ picture }) => picture === named) ?? { picture: named, items: named.items };
    const item = hit.items.find(({ index }) => String(index) === state.box) ?? null;
    return open(hit, item);
  }

  function followAddress() {
    const asked = Filters.parse(location.hash);
    if (!asked) return;
    at("trouble").hidden = true;
    state = asked;
    show();
    if (state.picture) openNamed();
    else {
      Large.close();
      at("gallery").scrollIntoView();
    }
  }

  function listen() {
    let soon = 0;
    for (const name of FIELDS) {
      const typed = at(name).tagName === "INPUT";
      at(name).addEventListener(typed ? "input" : "change", () => {
        clearTimeout(soon);
        soon = setTimeout(() => change({ [name]: at(name).value }), typed ? 250 : 0);
      });
    }
    at("filters").addEventListener("submit", (event) => event.preventDefault());
    at("heat").addEventListener("change", () => {
      state = { ...state, heat: at("heat").checked ? "1" : "" };
      remember();
      showPage();
    });
    at("reset").addEventListener("click", () => {
      const { order, heat } = state;
      change({ ...Filters.NOTHING, order, heat });
      at("flag").focus();
    });
    at("back").addEventListener("click", () => turn(-1));
    at("on").addEventListener("click", () => turn(1));
    window.addEventListener("hashchange", followAddress);
  }

  async function start() {
    meta = await whybox.meta();
    fillChoices();
    state = Filters.parse(location.hash) ?? state;
    for (let number = 0; number < meta.chunks; number++) {
      const packed = await whybox.index(number);
      for (const each of packed) pictures.push(Filters.picture(each, pictures.length, meta));
      complete = number + 1 === meta.chunks;
      if (number === 0 || complete) show(); // the first page is there at once
    }
    document.documentElement.dataset.ready = "true";
    listen();
    if (state.picture) openNamed();
    else if (location.hash.includes("=")) at("gallery").scrollIntoView();
  }

  start().catch(trouble);
})();
