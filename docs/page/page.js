"use strict";
// Connects to an endpoint, sends it a picture, and shows why its boxes are there.

const LONGEST = 1600; // screens show no more
const OTHER = " "; // among layers: a module by its name
const SELECTS = ["method", "target", "layer"];
const FIELDS = [...SELECTS, "score_threshold", "max_detections"];
const CONNECTION = ["server", "model", "version", "token"];

// The token is here and in its input, and nowhere else.
const state = {
  server: null, // address, model, version, token
  picture: null, // file, pixels (ImageData)
  connecting: null, // promises of what is not there yet
  taking: null,
  running: null, // the AbortController of the request that is awaited
};

// What a person is told; field: the name of what is wrong, where it is one.
class Refusal extends Error {
  constructor(message, field = null) {
    super(message);
    this.field = field;
  }
}

// --- the server ---

const OPEN_THERE =
  "“python -m archives page” prints an address at which this page may ask; open it there.";

function unreachable(address) {
  return new Refusal(
    `No answer from ${address}.\nEither no server runs there, or the browser may not ask it: ` +
      `TorchServe takes no token from a page of another address. ${OPEN_THERE}`,
    "server",
  );
}

function another(address) {
  return new Refusal(`What answers at ${address} is not Whybox's endpoint.\n${OPEN_THERE}`, "server");
}

function refusal(status, given) {
  if (status === 413) {
    return new Refusal("The picture's file is larger than the server takes.", "picture");
  }
  // A proxy's 401 names no field.
  const ours = status === 401 ? "token" : given.error?.field;
  if (given.error) return new Refusal(given.error.message, ours);
  const fields = { ModelNotFoundException: "model", ModelVersionNotFoundException: "version" };
  if (given.type === "InvalidKeyException") {
    const why = "The server does not take this token: it is wrong, or it has expired.";
    return new Refusal(`${why}\n“python -m archives rotate” makes a new one.`, "token");
  }
  return new Refusal(
    `The server answered with status ${status}: ${given.message}`,
    fields[given.type],
  );
}

async function ask(server, verb, { body, headers, signal } = {}) {
  const path = [verb, server.model, server.version].filter(Boolean).map(encodeURIComponent);
  let answer, text;
  try {
    answer = await fetch(`${server.address}/${path.join("/")}`, {
      method: body ? "POST" : "GET",
      headers: { Authorization: `Bearer ${server.token}`, ...headers },
      credentials: "omit",
      redirect: "error",
      body,
      signal,
    });
    text = await answer.text();
  } catch (error) {
    throw signal?.aborted ? error : unreachable(server.address);
  }
  let given = null;
  try {
    given = JSON.parse(text);
  } catch {} // said below
  if (!given && answer.status !== 413) throw another(server.address);
  if (!answer.ok) throw refusal(answer.status, given);
  return given;
}

function serverAsTyped() {
  const [address, model, version, token] = CONNECTION.map((id) => at(id).value.trim());
  let url = null;
  try {
    url = new URL(address);
  } catch {} // said below
  if (!url || !["http:", "https:"].includes(url.protocol)) {
    throw new Refusal("The server's address has to be like http://127.0.0.1:8080.", "server");
  }
  if (!model) throw new Refusal("Which model? The demo's is called demo.", "model");
  // Whoever copies the whole line of the file gives the header.
  const bare = token.replace(/^authorization:\s*/i, "").replace(/^bearer\s+/i, "");
  if (!/^[\x21-\x7e]+$/.test(bare)) {
    throw new Refusal("The token is missing, or has letters that no token has.", "token");
  }
  return { address: url.origin + url.pathname.replace(/\/+$/, ""), model, version, token: bare };
}

async function connect() {
  calm(CONNECTION);
  at("connect-button").textContent = "Connecting …";
  try {
    const server = serverAsTyped();
    const described = await ask(server, "predictions", { headers: { describe: "True" } });
    if (!Array.isArray(described.methods)) throw another(server.address);
    state.server = server;
    offer(described);
    const { name, version, architecture } = described;
    at("connected").textContent = `${name} ${version} at ${new URL(server.address).host}`;
    at("connected").title = architecture;
    at("connection").open = false;
    say(state.picture ? "Connected." : "Connected. Now choose a picture.");
    at(state.picture ? "explain" : "picture").focus();
  } catch (error) {
    complain(error);
  } finally {
    at("connect-button").textContent = "Connect";
  }
}

function offer({ defaults, methods, targets, layers }) {
  const shaped = defaults.smooth ? ", smoothed" : "";
  const texts = [`${defaults.method}${shaped}`, defaults.target, defaults.layer ?? "emitting"];
  [methods, targets, layers].forEach((names, place) => {
    const select = at(SELECTS[place]);
    const before = select.value;
    const options = [new Option(`default (${texts[place]})`, "")];
    options.push(...names.map((name) => new Option(name)));
    if (select.id === "layer") options.push(new Option("a module by its name …", OTHER));
    select.replaceChildren(...options);
    select.value = options.some((option) => option.value === before) ? before : "";
    select.disabled = false;
  });
  chosenLayer();
}

function chosenLayer() {
  at("module-part").hidden = at("layer").value !== OTHER;
  return at("layer").value === OTHER ? at("module").value.trim() : at("layer").value;
}

// --- what a person is told ---

function say(text) {
  at("status").textContent = text;
}

function controlOf(field) {
  return at(field === "layer" && at("layer").value === OTHER ? "module" : field);
}

function calm(fields) {
  at("error").hidden = true;
  for (const field of fields) at(field).removeAttribute("aria-invalid");
  for (const field of fields) at(field).removeAttribute("aria-errormessage");
}

function complain(error) {
  const lines = error.message.split("\n").map((line) => {
    return Object.assign(document.createElement("p"), { textContent: line });
  });
  at("error").replaceChildren(...lines);
  at("error").hidden = false;
  say("");
  const control = error.field && controlOf(error.field);
  if (!control) return;
  control.setAttribute("aria-invalid", "true");
  control.setAttribute("aria-errormessage", "error");
  if (CONNECTION.includes(error.field)) at("connection").open = true;
  control.focus();
}

let timer = 0;
function busy(start) {
  clearInterval(timer);
  at("result").setAttribute("aria-busy", String(start !== null));
  at("seconds").textContent = "";
  if (start === null) return;
  say("Explaining …");
  timer = setInterval(() => {
    at("seconds").textContent = `${Math.round((performance.now() - start) / 1000)} s`;
  }, 500);
}

// --- the picture ---

function taken(files) {
  if (files.length) state.taking = take(files[0]);
}

async function take(file) {
  calm(["picture"]);
  state.running?.abort();
  state.running = null;
  busy(null);
  Boxes.clear();
  const own = (state.picture = { file, pixels: null });
  at("picture-name").textContent = file.name || "the pasted picture";
  try {
    const bitmap = await createImageBitmap(file); // upright, as the server has it
    if (own !== state.picture) return;
    own.pixels = placed(bitmap);
    say(state.server ? "" : "Now connect to a server.");
  } catch {
    if (own !== state.picture) return;
    state.picture = null;
    at("frame").hidden = true;
    const what = `This browser cannot show ${file.name}: it has to be a picture, best a JPEG or PNG.`;
    complain(new Refusal(what, "picture"));
  }
}

function placed(bitmap) {
  const shrink = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => {
    return Math.max(1, Math.round(side * shrink));
  });
  for (const id of ["base", "heat"]) Object.assign(at(id), { width, height });
  const context = at("base").getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // under what is transparent, as at the server
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  at("frame").style.setProperty("--aspect", width / height);
  at("frame").hidden = false;
  at("invitation").hidden = true;
  at("stage").classList.remove("empty");
  return context.getImageData(0, 0, width, height);
}

// --- the request ---

function request() {
  const form = new FormData();
  form.set("picture", state.picture.file);
  for (const field of FIELDS) {
    const value = field === "layer" ? chosenLayer() : at(field).value.trim();
    if (value) form.set(field, value);
  }
  if (at("normalize_in_box").checked) form.set("normalize_in_box", "true");
  return form;
}

async function explain() {
  await state.connecting;
  await state.taking;
  const missing = state.server
    ? !state.picture?.pixels && new Refusal("First choose a picture.", "picture")
    : new Refusal("First connect to a server.", "token");
  if (missing) {
    if (at("error").hidden) complain(missing); // else it says why that failed
    return;
  }
  calm([...FIELDS, "module", "normalize_in_box", "picture"]);
  state.running?.abort(); // the answer to the one before is of no use any more
  const own = (state.running = new AbortController());
  const start = performance.now();
  Boxes.clear();
  busy(start);
  at("stage").scrollIntoView({ block: "nearest" }); // where the window is narrow it lies below
  try {
    const asked = { body: request(), signal: own.signal };
    const answer = await ask(state.server, "explanations", asked);
    if (own !== state.running) return;
    Boxes.show(answer, state.picture.pixels);
    offerModules(answer.explanations);
    const number = answer.explanations.length;
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    say(`${number || "No"} ${number === 1 ? "box" : "boxes"} in ${seconds} s.`);
  } catch (error) {
    if (own === state.running) complain(error);
  } finally {
    if (own === state.running) {
      state.running = null;
      busy(null);
    }
  }
}

// Names that were answered are good to ask for again.
function offerModules(explanations) {
  const names = [...at("modules").options].map((option) => option.value);
  for (const { layer } of explanations) names.push(layer);
  at("modules").replaceChildren(...[...new Set(names)].map((name) => new Option(name)));
}

// --- what a person does ---

at("server").value = /^https?:/.test(location.origin) ? location.origin : "http://127.0.0.1:8080";
const on = (id, kind, act) => {
  at(id).addEventListener(kind, (event) => {
    if (kind === "submit") event.preventDefault();
    act(event);
  });
};
on("connect", "submit", () => {
  state.connecting = connect();
});
on("ask", "submit", explain);
on("layer", "change", chosenLayer);
on("picture", "change", () => taken(at("picture").files));
on("opacity", "input", () => {
  at("heat").style.opacity = at("opacity").value / 100;
});

document.addEventListener("paste", ({ clipboardData }) => taken(clipboardData.files));
document.addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault(); // else the browser opens the file
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove("dragging"); // left the window
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  taken(event.dataTransfer.files);
});
