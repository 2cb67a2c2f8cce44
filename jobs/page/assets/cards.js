"use strict";
// The gallery's cards: a page of them, each with its picture once it comes into view.

const Cards = (() => {
  const MOST_FINDINGS = 2; // sentences below a picture
  const MARGIN = "600px"; // how far off pictures are loaded ahead

  const list = document.getElementById("cards");
  let cards = []; // of this page {hit, line, frame, stop}
  const watch = new IntersectionObserver(seen, { rootMargin: MARGIN });

  // hits: as Filters gives them. settings: whether maps are of several. heated: the first box's
  // heatmap is shown at once. onOpen(hit, item or null), onTrouble(error).
  function show(hits, { settings, heated, onOpen, onTrouble, tall }) {
    watch.disconnect();
    cards = hits.map((hit) => card(hit, { settings, heated, onOpen, onTrouble, tall }));
    list.replaceChildren(...cards.map(({ line }) => line));
    for (const { line } of cards) watch.observe(line);
  }

  function seen(entries) {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      cards.find(({ line }) => line === target)?.load();
    }
  }

  function card(hit, { settings, heated, onOpen, onTrouble }) {
    const { picture, items } = hit;
    const { element } = Frames;
    const line = element("li", "card");
    const caption = element("p", "caption");
    const made = Frames.make(picture, items, {
      captions: false,
      onLook: (item) => look(item ?? (heated ? made.items[0] ?? null : null), item),
      onOpen: (item) => onOpen(hit, item),
    });
    const heading = element("h3", "key");
    const link = element("a");
    link.href = Filters.format({ ...Filters.NOTHING, picture: picture.key });
    const name = element("bdi", "", picture.shown);
    link.append(name);
    heading.append(link);
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // another window
      event.preventDefault();
      onOpen(hit, null);
    });

    const stage = element("div", "stage");
    stage.append(made.frame);
    line.append(stage, caption, heading, findings(hit));
    const stops = [...made.buttons.values()];
    const own = { hit, line, stop: stops[0] ?? link, load };
    if (stops.length) link.tabIndex = -1; // one stop for a card; the arrow keys go on
    own.stop.tabIndex = 0;
    stops.forEach((button) => button.addEventListener("focus", () => {
      own.stop.tabIndex = -1;
      own.stop = button;
      own.stop.tabIndex = 0;
    }));
    line.addEventListener("keydown", (event) => step(event, own, stops));

    const rest = () => {
      const number = new Set(picture.items.map(({ index }) => index)).size;
      const words = number === 1 ? "1 box" : number ? `${number} boxes` : "Nothing was detected";
      const drawn = made.left ? `; ${made.items.length} are drawn, the others are in the large view`
        : made.items.length < number ? `, ${made.items.length} shown` : "";
      caption.textContent = words + drawn;
    };

    // shown: the item with its heatmap; pointed: the one a person looks at.
    function look(shown, pointed) {
      made.show(shown);
      rest();
      if (!pointed) return;
      const setting = settings ? `, ${pointed.setting}` : "";
      caption.textContent =
        `${Frames.title(pointed)}, energy in the box ${pointed.energy.toFixed(2)}${setting}`;
    }

    async function load() {
      try {
        made.fill(await whybox.picture(picture.rank));
      } catch (error) {
        onTrouble(error);
      }
    }

    look(heated ? made.items[0] ?? null : null, null);
    return own;
  }

  // The worst findings, each with its flag.
  function findings({ picture }) {
    const { element } = Frames;
    const made = element("ul", "findings");
    for (const each of picture.findings.slice(0, MOST_FINDINGS)) {
      const line = element("li");
      line.append(element("strong", "", each.flag), ` ${each.says}`);
      made.append(line);
    }
    const more = picture.findings.length - MOST_FINDINGS;
    if (more > 0) made.append(element("li", "faint", `and ${more} more`));
    made.hidden = !picture.findings.length;
    return made;
  }

  // Left and right go from box to box and on to the next card, up and down from row to row.
  function step(event, own, stops) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const place = cards.indexOf(own);
    const across = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const down = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    let next = null;
    if (across) {
      next = stops[stops.indexOf(event.target) + across] ?? cards[place + across]?.stop;
    } else if (down) {
      next = cards[place + down * columns()]?.stop;
    } else if (event.key === "Home") {
      next = cards[0].stop;
    } else if (event.key === "End") {
      next = cards.at(-1).stop;
    }
    if (!next) return;
    event.preventDefault();
    next.focus({ focusVisible: true });
    next.scrollIntoView({ block: "nearest" });
  }

  function columns() {
    const tops = cards.map(({ line }) => line.offsetTop);
    return Math.max(1, tops.filter((top) => top === tops[0]).length);
  }

  // Puts the keyboard's focus on the first card.
  function focus() {
    cards[0]?.stop.focus();
  }

  return { focus, show };
})();
