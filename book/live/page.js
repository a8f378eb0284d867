// The live page: a pad to draw on, and the model of engine.js, which finishes the drawing.
"use strict";

function startLivePage(here) {
  const SLICE = 10; // milliseconds of work before the browser gets its turn
  const SPEEDS = [5, 20, 60, 120, 240, 480, Infinity]; // pixels per second
  const MAGMA = ["#000004", "#1c1044", "#4f127b", "#812581", "#b5367a", "#e55064", "#fb8761", "#fec287", "#fcfdbf"];
  const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const UNDOS = 50; // changes that can be undone
  const $ = (name) => document.getElementById(`live-${name}`);
  const live = document.getElementById("live");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  // What is drawn on the pad
  let size = 28;
  let levels = liveExamples.num_levels;
  let ink = new Float32Array(size * size); // from 0, paper, to 1
  let kept = 0; // rows that the model must keep
  let pen = null; // the pointer that is drawing, and its last place
  let cursor = 0; // the pixel that the keyboard has reached
  let keyboard = false; // whether the keyboard is on the pad
  let inspected = null; // the pixel that is pointed at
  const history = []; // for Undo, the latest last

  // What the model does
  let model = null, loading = null;
  let readings = []; // for each class, the kept pixels as the model reads them
  let run = newRun();
  let mode = "open"; // open, playing, paused, done
  let hint = ""; // what the status says while the mode is open; by default it depends on the pad alone
  let until = Infinity; // at which pixel to pause
  let allowance = 0, lastSlice = 0; // how many pixels the speed allows, and when that was computed
  let working = false;
  let more = false; // whether the last turn left work to do
  let frame = 0; // the frame that is asked for
  let frameBegan = 0, frameCost = 0, unshown = 0; // milliseconds: when, how long, and the work since then

  // Endings, the one that the pad shows, the probability of each class before the first pixel, the seconds of work.
  function newRun() {
    return { endings: [], chosen: 0, shares: null, seconds: 0, settings: null };
  }

  // --- Settings ---------------------------------------------------------------------------------------------------

  const radio = (name, value) => live.querySelector(`[name=live-${name}][value="${value}"]`);
  const checked = (name) => live.querySelector(`[name=live-${name}]:checked`).value;

  const setting = {
    get temperature() { return Number($("temperature").value); },
    get topP() { return Number($("top-p").value); },
    get speed() { return SPEEDS[$("speed").value]; },
    get seed() { return Math.trunc(Number($("seed").value)) || 0; },
    get count() { return Number(checked("count")); },
    get eraser() { return checked("tool") === "eraser"; },
    get digit() { return checked("digit"); },
  };

  function showSettings() {
    const speed = setting.speed;
    $("rows").max = size - 1;
    $("rows").value = kept;
    $("rows-shown").value = `${kept} of ${size}`;
    $("temperature-shown").value = setting.temperature.toFixed(2);
    $("top-p-shown").value = setting.topP.toFixed(2);
    $("speed-shown").value = speed === Infinity ? "all at once" : `${speed} pixels/s`;
    $("speed").setAttribute("aria-valuetext", $("speed-shown").value);
  }

  // --- The model --------------------------------------------------------------------------------------------------

  function load() {
    if (model) return Promise.resolve();
    loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script"); // a browser does not let a page on disk fetch a file
      window.liveWeights = undefined;
      script.src = new URL("weights.js", here).href;
      script.onload = resolve;
      script.onerror = () => reject(new Error("The file of weights could not be loaded."));
      document.head.append(script);
    }).then(() => {
      model = new PixelTransformer(window.liveWeights);
      model.header = window.liveWeights.header;
      window.liveWeights = undefined;
      levels = model.config.num_levels;
      if (model.config.image_size !== size) resize(model.config.image_size);
      offerClasses(model.config.num_classes);
      makeBars();
      showState();
      wake(); // reading can begin before the button is pressed
    }).finally(() => loading = null);
    return loading;
  }

  function offerClasses(count) {
    $("digits").hidden = count === 0;
    for (const chip of live.querySelectorAll(".live-digits input")) {
      chip.parentNode.hidden = chip.value !== "any" && Number(chip.value) >= count;
      if (chip.parentNode.hidden && chip.checked) radio("digit", "any").checked = true;
    }
  }

  // The model has images of another size than the pad: the drawing is scaled.
  function resize(newSize) {
    const scaled = (i) => Math.floor((i + 0.5) * size / newSize);
    ink = Float32Array.from({ length: newSize ** 2 },
      (_, i) => ink[scaled(Math.floor(i / newSize)) * size + scaled(i % newSize)]);
    kept = Math.min(newSize - 1, Math.round(kept * newSize / size));
    size = newSize;
    history.length = cursor = 0;
    pen = null;
    for (const canvas of live.querySelectorAll("#live-pad, #live-map, #live-endings canvas")) {
      canvas.width = canvas.height = size;
    }
    live.style.setProperty("--live-size", size);
    $("examples").closest("fieldset").hidden = true; // they have another size
    showSettings();
    render();
  }

  const token = (i) => Math.min(levels - 1, Math.floor(ink[i] * levels));
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const labels = () => Array.from({ length: Math.max(1, model.config.num_classes) }, (_, label) => label);
  const wanted = () => (setting.digit === "any" ? labels() : [Number(setting.digit)]);

  function newReading(label) {
    return { picture: new Picture(model, label), bits: new Float64Array(size * size) };
  }

  // A reading, once the model draws on from there: it also notes how uncertain each prediction was, in bits.
  function newEnding({ picture, bits }, random) {
    const entropies = new Float32Array(size * size);
    for (let i = 0; i < picture.length; i++) entropies[i] = entropy(sampled(picture, i));
    return { picture: picture.copy(), bits: bits.slice(), entropies, random };
  }

  // Add a token, and note its cost in bits.
  function take({ picture, bits }, value) {
    bits[picture.length] = -Math.log2(Math.max(distribution(model.predict(picture))[value], 1e-30));
    picture.append(value);
  }

  const logitsAt = (picture, i) => picture.logits.subarray(i * levels, (i + 1) * levels);
  const sampled = (picture, i) => distribution(logitsAt(picture, i), setting.temperature, setting.topP);
  const bitsPerPixel = ({ picture, bits }) => sum(bits.subarray(0, picture.length)) / picture.length;

  // Readings agree with the pad up to the first pixel that has changed.
  function rewindReadings() {
    for (const { picture } of readings.filter(Boolean)) {
      let same = 0;
      while (same < Math.min(picture.length, kept * size) && picture.tokens[same] === token(same)) same++;
      picture.rewind(same);
    }
  }

  // The probability of each class given the kept pixels, all being equally likely before (Bayes).
  function beliefs() {
    const read = readings.filter(Boolean);
    if (read.length < labels().length) return null;
    const length = Math.min(...read.map(({ picture }) => picture.length));
    const costs = read.map(({ bits }) => sum(bits.subarray(0, length)));
    return distribution(costs.map((cost) => -cost * Math.LN2));
  }

  // One pixel's worth of work. False when nothing is left to do for now.
  function advance() {
    for (const label of wanted()) readings[label] ??= newReading(label);
    const behind = wanted().map((label) => readings[label]).sort((a, b) => a.picture.length - b.picture.length)[0];
    if (behind.picture.length < kept * size) {
      take(behind, token(behind.picture.length));
      return true;
    }
    if (mode !== "playing") return false;
    if (!run.endings.length) {
      const { digit, count, seed } = setting;
      run.settings = { digit, count, seed };
      run.shares = digit === "any" ? beliefs() : null;
      for (let i = 0; i < count; i++) {
        const random = randomNumbers(seed ^ Math.imul(i, 0x9e3779b1));
        run.endings.push(newEnding(readings[run.shares ? draw(run.shares, random) : Number(digit)], random));
      }
      showState();
      return true;
    }
    const next = run.endings.reduce((a, b) => (b.picture.length < a.picture.length ? b : a));
    if (next.picture.length >= Math.min(until, size * size)) {
      setMode(next.picture.length < size * size ? "paused" : "done");
      return false;
    }
    if (next === run.endings[0]) {
      if (allowance < 1) return false;
      allowance--;
    }
    const at = next.picture.length;
    model.predict(next.picture);
    const probabilities = sampled(next.picture, at);
    next.entropies[at] = entropy(probabilities);
    take(next, draw(probabilities, next.random));
    return true;
  }

  // --- Turns: a slice of work, then the browser's -----------------------------------------------------------------

  const channel = new MessageChannel();
  channel.port1.onmessage = work;

  function wake() {
    if (!model) return;
    rewindReadings();
    if (working) return;
    working = true;
    lastSlice = performance.now();
    allowance = 1;
    channel.port2.postMessage(null);
  }

  function work() {
    const began = performance.now();
    if (more && frameBegan) frameCost = began - frameBegan;
    frameBegan = 0;
    more = true;
    allowance = Math.min(allowance + (began - lastSlice) / 1000 * setting.speed, Math.max(1, setting.speed / 5));
    if (setting.speed === Infinity) allowance = Infinity;
    lastSlice = began;
    try {
      while (more && performance.now() - began < SLICE) more = advance();
    } catch (error) {
      more = false;
      fail(error);
    }
    const spent = performance.now() - began;
    run.seconds += spent / 1000;
    unshown += spent;
    if (!more || unshown > 4 * frameCost) render(); // a slow processor spends its time on the model
    working = more || mode === "playing";
    if (more) channel.port2.postMessage(null);
    else if (working) setTimeout(work, 12); // the speed allows no more just now
  }

  async function play(steps = Infinity) {
    if (mode === "done") discard();
    until = Math.max(kept * size, ...run.endings.map(({ picture }) => picture.length)) + steps;
    $("alert").hidden = true;
    setMode("playing");
    try {
      await load();
    } catch (error) {
      return fail(error);
    }
    wake();
  }

  function fail(error) {
    run = newRun();
    hint = "";
    setMode("open");
    $("alert").hidden = false;
    $("alert").textContent = `${error.message} You can read on without it; to try again, press the button.`;
  }

  // --- What changes the drawing or drops the endings --------------------------------------------------------------

  function remember() {
    const before = !run.endings.length ? "open" : mode === "done" ? "done" : "paused";
    history.push({ ink: ink.slice(), kept, run, hint, mode: before });
    if (history.length > UNDOS) history.shift();
  }

  function undo() {
    if (!history.length) return;
    const before = history.pop();
    ({ ink, kept, run, hint } = before);
    pen = null;
    if (run.settings) {
      radio("digit", run.settings.digit).checked = true;
      radio("count", run.settings.count).checked = true;
      $("seed").value = run.settings.seed;
    }
    restart(before.mode);
  }

  function discard() {
    if (run.endings.length) remember();
    changed();
  }

  function changed(words = "") {
    run = newRun();
    hint = words;
    restart("open");
  }

  function restart(newMode) {
    inspected = null;
    $("alert").hidden = true;
    setMode(newMode);
    wake();
    showSettings();
    render();
  }

  // --- What the reader is told ------------------------------------------------------------------------------------

  function setMode(name) {
    mode = name;
    if (mode === "done") {
      for (const { picture } of run.endings) picture.keys = picture.values = null; // large, and of no more use
    }
    showState();
  }

  // The button, the status and the tools all follow from the mode, so that they agree.
  function showState() {
    const any = run.endings.length > 0;
    write($("draw"), { open: "Draw the rest", playing: "Pause", paused: "Go on", done: "Draw again" }[mode]);
    write($("status"), status());
    $("save").disabled = !any;
    $("undo").disabled = !history.length;
    $("tool").hidden = any;
    $("edit").hidden = !any;
    $("frame").classList.toggle("is-open", !any);
  }

  function status() {
    if (mode === "open") {
      if (hint) return hint;
      return kept ? "Let the model draw the rest, or change the drawing first."
        : "An empty pad: draw the top of a digit, or let the model draw all of it.";
    }
    if (mode === "paused") return `Paused before ${place(run.endings[run.chosen]?.picture.length ?? kept * size)}.`;
    if (mode === "done") {
      const scores = run.endings.map((ending) => bitsPerPixel(ending).toFixed(2)).join(", ");
      const test = model.header.score.bits_per_pixel.toFixed(2);
      return `Done after ${run.seconds.toFixed(1)} seconds of work. Bits per pixel: ${scores}. ` +
        `The mean over its test images is ${test}.`;
    }
    if (!model) return "Loading the model…";
    const guesses = setting.digit === "any" && kept > 0 && model.config.num_classes > 0;
    if (guesses && !run.shares) return "The model reads your pixels, once as the beginning of each digit…";
    return guesses ? announcement(run.shares) : "The model draws…";
  }

  function announcement(shares) {
    const order = shares.map((_, label) => label).sort((a, b) => shares[b] - shares[a]);
    const likely = order.filter((label, i) => i === 0 || (i < 4 && shares[label] >= 0.02));
    const words = likely.map((label) => `${aDigit(label)} (${percent(shares[label])})`);
    return `The model takes this for the beginning of ${words.join(" or ")}.`;
  }

  const place = (i) => `row ${Math.floor(i / size) + 1}, column ${i % size + 1}`;
  const percent = (p) => (p > 0 && p < 0.01 ? "under 1 %" : `${Math.round(100 * p)} %`);
  const aDigit = (label) => `${label === 8 ? "an" : "a"} ${label}`;

  // Set a text only if it is new: a screen reader hears no repetition, and the browser lays out nothing.
  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function describe(element, text) {
    if (element.getAttribute("aria-label") !== text) element.setAttribute("aria-label", text);
  }

  // --- Pictures ---------------------------------------------------------------------------------------------------

  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.trim().slice(i, i + 2), 16));
  const mix = (a, b, share) => a.map((value, i) => value + share * (b[i] - value));
  const packed = (colour) => new Uint32Array(new Uint8ClampedArray([...colour, 255]).buffer)[0]; // a canvas's pixel
  const ramp = (colour, steps) => Uint32Array.from({ length: steps }, (_, i) => packed(colour(i / (steps - 1))));

  // From black through red to yellow, for a share from 0 to 1
  const magma = MAGMA.map(rgb);
  const heat = ramp((share) => {
    const at = Math.min(0.999, share) * (magma.length - 1);
    return mix(magma[Math.floor(at)], magma[Math.floor(at) + 1], at % 1);
  }, 256);

  let colours = {};

  function readColours() {
    const style = getComputedStyle(live);
    const [paper, ink, given, next] = ["paper", "ink", "given", "next"]
      .map((name) => rgb(style.getPropertyValue(`--live-${name}`)));
    const shade = (share) => mix(paper, ink, share);
    colours = { paper: packed(paper), next: packed(next), shade,
      drawn: ramp(shade, levels), given: ramp((share) => mix(paper, given, share), levels) };
    for (const swatch of document.querySelectorAll("#live-bars em")) {
      swatch.style.background = `rgb(${shade(swatch.dataset.share)})`;
    }
  }

  // Give a canvas the packed colour(i) of each pixel, where 0 is open, if any has changed.
  const images = new WeakMap(); // what each canvas shows

  function paint(canvas, colour) {
    const context = canvas.getContext("2d");
    let image = images.get(canvas);
    if (image?.width !== canvas.width) images.set(canvas, image = context.createImageData(canvas.width, canvas.width));
    const pixels = new Uint32Array(image.data.buffer);
    let changes = 0;
    for (let i = 0; i < pixels.length; i++) {
      const found = colour(i);
      if (pixels[i] === found) continue;
      pixels[i] = found;
      changes++;
    }
    if (changes) context.putImageData(image, 0, 0);
  }

  function pixelColour(picture, i) {
    const given = i < kept * size;
    if (!picture) return given ? colours.given[token(i)] : colours.paper;
    if (i >= picture.length) return i === picture.length && mode !== "done" ? colours.next : colours.paper;
    return (given ? colours.given : colours.drawn)[picture.tokens[i]];
  }

  function render() {
    frame ||= requestAnimationFrame(() => {
      frame = unshown = 0;
      frameBegan = performance.now();
      try {
        renderNow();
      } catch (error) {
        fail(error);
      }
    });
  }

  function renderNow() {
    if (calm.matches && mode === "playing" && setting.speed === Infinity) return; // shown when it is finished
    const ending = run.endings[run.chosen];
    paint($("pad"), (i) => pixelColour(ending?.picture, i));
    $("line").hidden = kept === 0;
    $("line").style.top = `${100 * kept / size}%`;
    renderMap(ending);
    renderBars(ending);
    renderEndings();
    renderBeliefs();
  }

  function renderMap(ending) {
    const bits = Math.log2(levels);
    const colour = (share) => heat[Math.min(heat.length - 1, Math.floor(share * heat.length))];
    paint($("map"), (i) => (i < ending?.picture.length ? colour(ending.entropies[i] / bits) : 0));
    write($("key-end"), `${Number(bits.toFixed(2))} bits`);
  }

  function makeBars() {
    $("bars").replaceChildren(...Array.from({ length: levels }, (_, level) => {
      const bar = document.createElement("span");
      bar.innerHTML = `<b><i></i><i></i></b><em data-share="${level / (levels - 1)}"></em>`;
      return bar;
    }));
    readColours();
  }

  // The distribution of the pixel that is pointed at, or else of the next.
  function renderBars(ending) {
    const { picture } = ending ?? {};
    const pointed = picture && inspected !== null && inspected < picture.predicted;
    const at = pointed ? inspected : picture?.length;
    showMark(pointed ? inspected : keyboard ? cursor : null);
    write($("bars-title"), pointed ? "The pixel you point at" : "The next pixel");
    if (!picture || at === size * size) {
      for (const bar of $("bars").querySelectorAll("i")) bar.style.transform = "";
      for (const bar of $("bars").children) bar.classList.remove("is-chosen");
      describe($("bars"), "No prediction is shown");
      write($("readout"), picture ? "Point at a pixel, or tap it, to see what the model expected there." : "\u00a0");
      return;
    }
    if (!pointed) model.predict(picture);
    const before = distribution(logitsAt(picture, at)), after = sampled(picture, at);
    [...$("bars").children].forEach((bar, level) => {
      const [behind, front] = bar.firstChild.children;
      behind.style.transform = `scaleY(${before[level].toFixed(3)})`;
      front.style.transform = `scaleY(${after[level].toFixed(3)})`;
      bar.classList.toggle("is-chosen", at < picture.length && level === picture.tokens[at]);
    });
    write($("readout"), report(picture, at));
    const likely = before.map((_, level) => level).sort((a, b) => after[b] - after[a]).slice(0, 3);
    describe($("bars"),
      `Likeliest levels at ${place(at)}: ${likely.map((level) => `${level}, ${percent(after[level])}`).join("; ")}`);
  }

  // What was expected at a pixel, and what came.
  function report(picture, at) {
    if (at >= picture.predicted) return `R${place(at).slice(1)}: not drawn yet`;
    const probabilities = sampled(picture, at);
    const words = [`R${place(at).slice(1)}: entropy ${entropy(probabilities).toFixed(2)} bits`];
    if (at < picture.length) {
      const level = picture.tokens[at], source = at < kept * size ? "given" : "drawn";
      words.push(`${source}: level ${level}, which had ${percent(probabilities[level])}`);
    }
    return words.join("; ");
  }

  function showMark(at) {
    $("cursor").hidden = at === null;
    $("cursor").style.top = `${100 * Math.floor(at / size) / size}%`;
    $("cursor").style.left = `${100 * (at % size) / size}%`;
  }

  function renderEndings() {
    [...$("endings").children].forEach((button, i) => {
      const ending = run.endings[i];
      button.hidden = i >= (run.endings.length || setting.count);
      button.disabled = !ending;
      button.setAttribute("aria-pressed", String(Boolean(ending) && i === run.chosen));
      paint(button.children[1], (j) => pixelColour(ending?.picture, j));
      const score = ending?.picture.length ? bitsPerPixel(ending).toFixed(2) : "\u2013";
      write(button.lastChild, ending && model.config.num_classes ? `${aDigit(ending.picture.label)}: ${score}` : score);
    });
  }

  function renderBeliefs() {
    const shares = model && setting.digit === "any" && kept ? beliefs() : null;
    for (const chip of live.querySelectorAll(".live-digits input")) {
      const share = shares?.[chip.value] ?? 0;
      chip.nextSibling.style.setProperty("--belief", share.toFixed(3));
      const title = shares && chip.value !== "any" ? percent(share) : "";
      if (chip.parentNode.title !== title) chip.parentNode.title = title;
    }
  }

  // --- The pad ----------------------------------------------------------------------------------------------------

  // A stroke of a soft pen from one point to another, in pixels.
  function stroke(from, to) {
    ink.fill(0, kept * size); // what an example hides below the line stays hidden
    const reach = setting.eraser ? 2.6 : 1.9, core = setting.eraser ? 1.4 : 0.75;
    const along = [to.x - from.x, to.y - from.y];
    const squared = along[0] ** 2 + along[1] ** 2;
    const bottom = setting.eraser ? kept : size - 1;
    const first = Math.max(0, Math.floor(Math.min(from.y, to.y) - 3));
    for (let row = first; row < Math.min(bottom, Math.max(from.y, to.y) + 3); row++) {
      for (let column = 0; column < size; column++) {
        const x = column + 0.5 - from.x, y = row + 0.5 - from.y;
        const share = squared ? Math.max(0, Math.min(1, (x * along[0] + y * along[1]) / squared)) : 0;
        const distance = Math.hypot(x - share * along[0], y - share * along[1]);
        const strength = Math.max(0, Math.min(1, (reach - distance) / (reach - core)));
        const i = row * size + column;
        if (strength === 0) continue;
        ink[i] = setting.eraser ? Math.min(ink[i], 1 - strength) : Math.max(ink[i], strength);
        if (!setting.eraser && token(i) > 0) kept = Math.max(kept, row + 1); // the line follows the pen
      }
    }
    changed();
  }

  function point({ clientX, clientY }, canvas = $("pad")) {
    const box = canvas.getBoundingClientRect();
    return { x: (clientX - box.left) / box.width * size, y: (clientY - box.top) / box.height * size };
  }

  function inspect(spot) {
    const inside = spot && spot.x >= 0 && spot.y >= 0 && spot.x < size && spot.y < size;
    inspected = inside && run.endings.length ? Math.floor(spot.y) * size + Math.floor(spot.x) : null;
    render();
  }

  $("pad").addEventListener("pointerdown", (event) => {
    keyboard = false;
    if (run.endings.length || pen || !event.isPrimary || event.button !== 0) return;
    $("pad").setPointerCapture(event.pointerId);
    remember();
    pen = { pointer: event.pointerId, ...point(event) };
    stroke(pen, pen);
  });
  $("pad").addEventListener("pointermove", (event) => {
    if (pen?.pointer !== event.pointerId) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const part of events.length ? events : [event]) {
      const to = point(part);
      stroke(pen, to);
      Object.assign(pen, to);
    }
  });
  for (const name of ["pointerup", "pointercancel"]) {
    $("pad").addEventListener(name, (event) => {
      if (pen?.pointer !== event.pointerId) return;
      pen = null;
      if (name === "pointercancel") undo(); // two fingers that scroll or zoom
    });
  }
  for (const canvas of [$("pad"), $("map")]) {
    for (const name of ["pointerdown", "pointermove"]) {
      canvas.addEventListener(name, (event) => event.isPrimary && inspect(point(event, canvas)));
    }
    canvas.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "touch") inspect(null); // a finger is lifted to see what it has touched
    });
  }

  $("pad").addEventListener("keydown", (event) => {
    const step = ARROWS[event.key], space = event.key === " ", erase = ["Delete", "Backspace"].includes(event.key);
    if (event.ctrlKey || event.metaKey || event.altKey || !(step || space || erase)) return;
    event.preventDefault();
    const middle = () => ({ x: cursor % size + 0.5, y: Math.floor(cursor / size) + 0.5 });
    const from = middle();
    if (step) {
      const clip = (i) => Math.max(0, Math.min(size - 1, i));
      cursor = clip(Math.floor(cursor / size) + step[0]) * size + clip(cursor % size + step[1]);
    }
    if (!run.endings.length && (erase || space || event.shiftKey)) {
      remember();
      if (erase) {
        ink[cursor] = 0;
        changed();
      } else stroke(from, middle());
    }
    keyboard = true;
    inspect(middle());
    const { picture } = run.endings[run.chosen] ?? {};
    $("spoken").textContent = picture ? report(picture, cursor)
      : `${place(cursor)}, level ${cursor < kept * size ? token(cursor) : 0}`;
  });
  $("pad").addEventListener("focus", () => {
    keyboard = $("pad").matches(":focus-visible");
    render();
  });
  $("pad").addEventListener("blur", () => {
    keyboard = false;
    inspect(null);
  });

  // --- Buttons ----------------------------------------------------------------------------------------------------

  $("draw").addEventListener("click", () => (mode === "playing" ? setMode("paused") : play()));
  $("step").addEventListener("click", () => play(1));
  $("other").addEventListener("click", () => {
    discard();
    $("seed").value = (setting.seed + 1) % 2 ** 31;
    play();
  });
  $("edit").addEventListener("click", () => {
    discard();
    $("pad").focus({ preventScroll: true }); // because this button is gone
  });
  $("undo").addEventListener("click", () => {
    undo();
    if (!history.length) $("pad").focus({ preventScroll: true });
  });
  live.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key !== "z" || event.target === $("seed")) return;
    event.preventDefault();
    undo();
  });
  $("clear").addEventListener("click", () => {
    remember();
    ink.fill(0);
    kept = 0;
    changed();
  });
  let sliding = false; // one movement of the line is one change
  $("rows").addEventListener("input", () => {
    if (!sliding) remember();
    sliding = true;
    kept = Number($("rows").value);
    changed();
  });
  $("rows").addEventListener("change", () => sliding = false);
  $("save").addEventListener("click", () => {
    const scale = 10, gap = 10, width = size * scale;
    const sheet = document.createElement("canvas");
    const single = document.createElement("canvas");
    single.width = single.height = size;
    sheet.width = run.endings.length * (width + gap) - gap;
    sheet.height = width;
    const context = sheet.getContext("2d");
    context.imageSmoothingEnabled = false;
    run.endings.forEach((ending, i) => {
      paint(single, (j) => pixelColour(ending.picture, j));
      context.drawImage(single, i * (width + gap), 0, width, width);
    });
    const link = document.createElement("a");
    link.href = sheet.toDataURL("image/png");
    link.download = `digits-seed-${setting.seed}.png`;
    link.click();
  });

  function loadExample(i, words) {
    ink = Float32Array.from(liveExamples.digits[i], (level) => (parseInt(level, 16) + 0.5) / liveExamples.num_levels);
    kept = Math.round(0.4 * size); // where it may still become another digit
    changed(words);
  }

  function makeButtons() {
    $("examples").replaceChildren(...liveExamples.digits.map((digits, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-label", `The top of ${aDigit(i)}`);
      button.innerHTML = '<canvas width="28" height="28"></canvas>';
      button.addEventListener("click", () => {
        remember();
        loadExample(i, `The top of ${aDigit(i)}, drawn by the book's larger transformer.`);
      });
      return button;
    }));
    $("digit-chips").innerHTML = ["any", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((value) =>
      `<label><input type="radio" name="live-digit" value="${value}"${value === "any" ? " checked" : ""}>` +
      `<span>${value === "any" ? "Any" : value}</span></label>`).join("");
    $("endings").replaceChildren(...[0, 1, 2, 3].map((i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.innerHTML = `<span class="live-hidden">Ending ${i + 1},</span>` +
        `<canvas width="${size}" height="${size}"></canvas><span></span>`;
      button.addEventListener("click", () => {
        run.chosen = i;
        showState(); // a pause is at another pixel here
        render();
      });
      return button;
    }));
  }

  function paintExamples() {
    [...$("examples").children].forEach((button, i) => {
      const shares = Array.from(liveExamples.digits[i], (level) => parseInt(level, 16) / (liveExamples.num_levels - 1));
      paint(button.firstChild, (j) => packed(colours.shade(shares[j])));
    });
  }

  makeButtons();
  makeBars();
  live.hidden = false;
  if (calm.matches) $("speed").value = SPEEDS.length - 1;
  document.querySelector(".live-key i").style.background = `linear-gradient(to right, ${MAGMA.join(", ")})`;
  for (const name of ["temperature", "top-p", "speed"]) {
    $(name).addEventListener("input", () => {
      showSettings();
      render();
    });
  }
  for (const input of live.querySelectorAll("[name=live-digit], [name=live-count], #live-seed")) {
    input.addEventListener("input", discard);
  }
  for (const name of ["pointerdown", "keydown"]) {
    live.addEventListener(name, () => load().catch(() => {}), { once: true }); // the button tries again, and tells
  }
  new MutationObserver(() => {
    readColours();
    paintExamples();
    render();
  }).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  paintExamples();
  loadExample(2, "Here is the top of a digit. Let the model draw the rest, or clear the pad and begin one yourself.");
}

startLivePage(document.currentScript.src);
