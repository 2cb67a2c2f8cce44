"use strict";
// What a person asked to see, kept in the address, and which pictures and boxes that is.

const Filters = (() => {
  const FLAGGED = "*"; // any finding
  // By the names of the address; all are text.
  const NOTHING = {
    flag: "", category: "", setting: "", group: "", low: "", high: "", text: "", order: "worst",
    heat: "", page: "1", picture: "", box: "",
  };
  const ASKED = ["flag", "category", "setting", "group", "low", "high", "text"];

  // Of an address's part after #; null where that is a place in the page.
  function parse(hash) {
    if (!hash.includes("=")) return null;
    const given = new URLSearchParams(hash.slice(1));
    const state = Object.fromEntries(
      Object.entries(NOTHING).map(([name, value]) => [name, given.get(name) ?? value]),
    );
    for (const name of ["low", "high"]) if (!Number.isFinite(Number(state[name]))) state[name] = "";
    if (state.order !== "key" && !Object.hasOwn(ORDERS, state.order)) state.order = "worst";
    return state;
  }

  function format(state) {
    const given = Object.entries(state).filter(([name, value]) => value !== NOTHING[name]);
    return `#${new URLSearchParams(given)}`;
  }

  // Objects of what data/index-*.js holds. Names are of `meta`.
  function picture(packed, rank, meta) {
    const findings = packed.findings.map(([index, flag, severity, says, group, part]) => ({
      index, severity, says, flag: meta.flags[flag], group: meta.groups[group], part: meta.parts[part],
    }));
    const whole = findings.filter(({ index }) => index === null);
    const items = packed.boxes.map(
      ([index, x1, y1, x2, y2, label, category, score, setting, level, outcome, energy], place) => ({
        place, index, box: [x1, y1, x2, y2], label, score, level, energy,
        category: meta.categories[category],
        setting: meta.settings[setting],
        outcome: meta.outcomes[outcome],
        findings: findings.filter((each) => each.index === index),
      }),
    );
    const { key, shown = key, width, height, shard } = packed;
    return { rank, key, shown, width, height, shard, items, findings, whole };
  }

  function worst({ findings }) {
    return findings.length ? Math.max(...findings.map(({ severity }) => severity)) : -1;
  }

  // Which of a picture's boxes are asked for, the worst first; null where the picture is not.
  function matching(one, state) {
    if (state.text && !one.key.toLowerCase().includes(state.text.toLowerCase())) return null;
    const fits = ({ flag, group }) =>
      (!state.flag || state.flag === FLAGGED || state.flag === flag) &&
      (!state.group || state.group === group);
    const found = Boolean(state.flag || state.group);
    const whole = found && one.whole.some(fits);
    const [low, high] = [Number(state.low || 0), Number(state.high || 1)];
    const items = one.items.filter((item) =>
      (!state.category || item.category === state.category) &&
      (!state.setting || item.setting === state.setting) &&
      (!state.low || item.score >= low) && (!state.high || item.score <= high) &&
      (!found || whole || item.findings.some(fits)));
    const ofBoxes = state.category || state.setting || state.low || state.high;
    if (!items.length && (ofBoxes || (found && !whole))) return null;
    return items.sort((one, other) => worst(other) - worst(one) || other.score - one.score);
  }

  const ORDERS = {
    worst: () => 0,
    energy: (items) => Math.min(...items.map(({ energy }) => energy)),
    low: (items) => Math.min(...items.map(({ score }) => score)),
    high: (items) => -Math.max(...items.map(({ score }) => score)),
  };

  // [{picture, items}], in the order asked for.
  function hits(pictures, state) {
    const found = [];
    for (const each of pictures) {
      const items = matching(each, state);
      if (items) found.push({ picture: each, items });
    }
    if (state.order === "key") {
      return found.sort((one, other) => (one.picture.key < other.picture.key ? -1 : 1));
    }
    const order = ORDERS[state.order];
    const places = new Map(found.map((each) => [each, order(each.items)]));
    return found.sort((one, other) => {
      const [first, second] = [places.get(one), places.get(other)];
      return (first === second ? 0 : first - second) || one.picture.rank - other.picture.rank;
    });
  }

  const asked = (state) => ASKED.some((name) => state[name] !== "");

  return { FLAGGED, NOTHING, asked, format, hits, parse, picture };
})();
