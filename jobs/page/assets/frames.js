"use strict";
// A picture with its boxes, of which the one that is looked at shows its heatmap.

const Frames = (() => {
  // As BOXES and TOGETHER in handlers/render.py: by label, in turn.
  const COLOURS = "#4cc9f0 #b8f25a #ffd166 #ff6b9d #c8a2ff #5af2c8 #ff9f5a #8ab4ff".split(" ");
  const MOST_BOXES = 40;
  const LONGEST = 512; // of an empty frame, in pixels
  const BLANK = 150; // its grey
  const NOTHING = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";

  function element(kind, name = "", text = "") {
    const made = document.createElement(kind);
    if (name) made.className = name;
    if (text) made.textContent = text;
    return made;
  }

  // Cut, not rounded, as everywhere in Whybox.
  function shownScore(score) {
    if (score > 0 && score < 0.001) return "<0.001";
    const digits = score >= 0.1 ? 2 : 3;
    return (Math.floor(score * 10 ** digits + 1e-6) / 10 ** digits).toFixed(digits);
  }

  const colour = ({ label }) => COLOURS[Math.max(0, label - 1) % COLOURS.length];
  const title = (item) => `${item.category} ${shownScore(item.score)}`;

  // All of it in words, as a button's name.
  function spoken(item) {
    const flags = item.findings.map(({ flag }) => flag).join(", ");
    return `${title(item)}, energy in the box ${item.energy.toFixed(2)}` +
      (flags ? `, flagged: ${flags}` : "");
  }

  // A picture's pixels, once it is loaded; without them an even grey of its size.
  async function pixelsOf({ width, height }, data) {
    const canvas = element("canvas");
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (data.jpeg) {
      const image = new Image();
      image.src = `data:image/jpeg;base64,${data.jpeg}`;
      await image.decode();
      [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
      context.drawImage(image, 0, 0);
    } else {
      const factor = Math.min(1, LONGEST / Math.max(width, height));
      [canvas.width, canvas.height] = [width, height].map((side) => Math.max(1, Math.round(side * factor)));
      context.fillStyle = `rgb(${BLANK} ${BLANK} ${BLANK})`;
      context.fillRect(0, 0, canvas.width, canvas.height);
    }
    return context.getImageData(0, 0, canvas.width, canvas.height);
  }

  // picture, items: as Filters has them. captions: whether each box always has its own.
  // onLook(item or null), onOpen(item): told what a person looks at, and what was clicked.
  function make(picture, items, { captions, onLook, onOpen }) {
    const frame = element("div", "frame");
    frame.style.aspectRatio = `${picture.width} / ${picture.height}`;
    frame.style.setProperty("--aspect", picture.width / picture.height);
    frame.classList.toggle("captions", captions);
    const image = element("img");
    image.alt = described(picture);
    image.src = NOTHING;
    image.draggable = false;
    const heat = element("canvas", "heat");
    heat.setAttribute("role", "img");
    heat.hidden = true;
    const boxes = element("div", "boxes");
    boxes.setAttribute("role", "group");
    boxes.setAttribute("aria-label", `Boxes of ${picture.shown}`);
    frame.append(image, heat, boxes);

    const first = new Map(); // one box stands for its maps on several layers
    for (const item of items) if (!first.has(item.index)) first.set(item.index, item);
    const drawn = [...first.values()].slice(0, MOST_BOXES);
    const buttons = new Map(drawn.map((item) => [item.index, box(item, picture)]));
    const own = { frame, buttons, items: drawn, left: first.size - drawn.length, show, fill };
    let looks = {}; // what is pointed at, and what has the keyboard's focus
    let shown = null;
    let data = null;
    let pixels = null;

    for (const item of drawn) {
      const button = buttons.get(item.index);
      boxes.append(button);
      const look = (kind, value) => () => {
        looks[kind] = value;
        onLook(looks.pointed ?? looks.focused ?? null);
      };
      button.addEventListener("pointerenter", look("pointed", item));
      button.addEventListener("pointerleave", look("pointed", null));
      button.addEventListener("focus", () => {
        if (button.matches(":focus-visible")) look("focused", item)();
      });
      button.addEventListener("blur", look("focused", null));
      button.addEventListener("click", () => onOpen(item));
    }

    // The picture itself, when it is there.
    function fill(loaded) {
      data = loaded;
      frame.classList.toggle("blank", !data.jpeg);
      if (data.jpeg) image.src = `data:image/jpeg;base64,${data.jpeg}`;
      if (shown) paint();
    }

    // The heatmap of one of the picture's items; of none with null. heated: false for the box alone.
    function show(item, heated = true) {
      shown = item;
      frame.classList.toggle("showing", item !== null);
      for (const [index, button] of buttons) button.classList.toggle("active", index === item?.index);
      heat.hidden = true;
      if (item && heated && data) paint();
    }

    async function paint() {
      const item = shown;
      const { geometry, boxes, ...heatmap } = data.maps[item.place];
      pixels ??= pixelsOf(picture, data);
      const { image: painted, flat } = await Heat.drawn(
        { heatmap, box: item.box, boxes, in_box: data.inBox, geometry: data.geometries[geometry] },
        await pixels,
      );
      if (item !== shown || !heat.hidden) return; // another one meanwhile
      [heat.width, heat.height] = [painted.width, painted.height];
      heat.getContext("2d").putImageData(painted, 0, 0);
      heat.setAttribute("aria-label", `The heatmap of ${title(item)}` + (flat ? ", with no heat in it" : ""));
      heat.hidden = false;
    }

    return own;
  }

  function box(item, picture) {
    const [x1, y1, x2, y2] = item.box;
    const button = element("button", "box");
    button.type = "button";
    button.tabIndex = -1;
    button.setAttribute("aria-label", spoken(item));
    button.style.setProperty("--colour", colour(item));
    button.classList.toggle("dropped", !item.outcome.startsWith("reported"));
    button.classList.toggle("flagged", item.findings.length > 0);
    if (y1 < 0.1 * picture.height) button.classList.add(y2 > 0.9 * picture.height ? "inside" : "below");
    button.classList.toggle("right", x1 > 0.6 * picture.width);
    button.append(element("span", "", title(item)));
    const percent = (value, side) => `${(100 * value) / side}%`;
    Object.assign(button.style, {
      left: percent(x1, picture.width),
      top: percent(y1, picture.height),
      width: percent(x2 - x1, picture.width),
      height: percent(y2 - y1, picture.height),
      // The smaller ones on top, or they could not be pointed at.
      zIndex: Math.round(900 * (1 - ((x2 - x1) * (y2 - y1)) / (picture.width * picture.height))),
    });
    return button;
  }

  // What is in a picture, in words.
  function described(picture) {
    const numbers = new Map();
    const seen = new Set();
    for (const { index, category } of picture.items) {
      if (!seen.has(index)) numbers.set(category, (numbers.get(category) ?? 0) + 1);
      seen.add(index);
    }
    const list = [...numbers].map(([name, number]) => `${number} ${name}`).join(", ");
    return `${picture.shown}: ${list || "nothing was detected"}`;
  }

  return { colour, described, element, make, shownScore, title };
})();
