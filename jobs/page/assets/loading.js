"use strict";
// Data comes as scripts, for a page that was opened from disk may fetch nothing: each calls
// whybox.receive(name, data).

const whybox = (() => {
  const KEPT = 120; // pictures with their heatmaps, of some ten kilobytes each

  const answers = new Map(); // promises by name
  const waiting = new Map(); // what settles them

  function receive(name, data) {
    waiting.get(name)?.(data);
    waiting.delete(name);
  }

  function load(name) {
    if (!answers.has(name)) answers.set(name, new Promise((resolve, reject) => {
      waiting.set(name, resolve);
      const script = document.createElement("script");
      script.addEventListener("load", () => script.remove());
      script.addEventListener("error", () => {
        script.remove();
        answers.delete(name);
        reject(new Error(`data/${name}.js cannot be read. Was the report copied whole?`));
      });
      script.src = `data/${name}.js`;
      document.head.append(script);
    }));
    return answers.get(name);
  }

  // A picture of the gallery by its rank: its JPEG and heatmaps.
  function picture(rank) {
    const name = `picture-${String(rank).padStart(5, "0")}`;
    const answer = load(name);
    answers.delete(name); // to the end of the row: of those that are kept it is now the last
    answers.set(name, answer);
    const pictures = [...answers.keys()].filter((each) => each.startsWith("picture-"));
    for (const each of pictures.slice(0, -KEPT)) answers.delete(each);
    return answer;
  }

  function index(number) {
    return load(`index-${String(number).padStart(3, "0")}`);
  }

  return { index, meta: () => load("meta"), picture, receive };
})();
