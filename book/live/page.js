// The live page: a pad to draw on, and the model of engine.js that finishes what stands there.
"use strict";

function startLivePage(here) {
  const SLICE = 10; // milliseconds of work before the browser gets its turn
  const SPEEDS = [5, 20, 60, 120, 240, 480, Infinity]; // pixels per second
  const MAGMA = ["#000004", "#1c1044", "#4f127b", "#812581", "#b5367a", "#e55064", "#fb8761", "#fec287", "#fcfdbf"];
  const $ = (name) => document.getElementById(`live-${name}`);
  const live = document.getElementById("live");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  // What is drawn on the pad
  let size = 28;
  let levels = liveExamples.num_levels;
  let ink = new Float32Array(size * size); // from 0, paper, to 1
  let kept = 0; // rows that the model must keep
  const cursor = { row: 0, column: 0 };

  // What the model does
  let model = null, loading = null;
  let readings = []; // for each class, the kept pixels as the model reads them
  let endings = []; // pictures on their way
  let random = []; // the dice of each
  let chosen = 0; // the ending that the pad shows
  let mode = "open"; // open, playing, paused, done
  let until = Infinity; // at which pixel to pause
  let allowance = 0, lastSlice = 0; // how many pixels the speed allows, and when that was reckoned
  let working = false, seconds = 0;
  let inspected = null; // a pixel that is pointed at
  let drawnFrame = 0;

  // --- Settings ---------------------------------------------------------------------------------------------------

  const setting = {
    get temperature() { return Number($("temperature").value); },
    get topP() { return Number($("top-p").value); },
    get speed() { return SPEEDS[$("speed").value]; },
    get seed() { return Math.trunc(Number($("seed").value)) || 0; },
    get count() { return Number(live.querySelector("[name=live-count]:checked").value); },
    get eraser() { return live.querySelector("[name=live-tool]:checked").value === "eraser"; },
    get digit() { return live.querySelector("[name=live-digit]:checked").value; },
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
    }).finally(() => loading = null);
    return loading;
  }

  function offerClasses(count) {
    $("digits").hidden = count === 0;
    for (const chip of live.querySelectorAll(".live-digits input")) {
      chip.parentNode.hidden = chip.value !== "any" && Number(chip.value) >= count;
      if (chip.parentNode.hidden && chip.checked) live.querySelector("[name=live-digit][value=any]").checked = true;
    }
  }

  const token = (i) => Math.min(levels - 1, Math.floor(ink[i] * levels));
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const labels = () => Array.from({ length: Math.max(1, model.config.num_classes) }, (_, label) => label);
  const wanted = () => (setting.digit === "any" ? labels() : [Number(setting.digit)]);

  function newReading(label) {
    return { picture: new Picture(model, label), bits: new Float64Array(size * size) };
  }

  // What a reading becomes once pixels are drawn: it then notes too how open each choice was, in bits.
  function newEnding({ picture, bits }) {
    const entropies = new Float32Array(size * size);
    for (let i = 0; i < picture.length; i++) entropies[i] = entropy(dice(picture, i));
    return { picture: picture.copy(), bits: bits.slice(), entropies };
  }

  // Add a token, and note what it cost in bits.
  function take({ picture, bits }, value) {
    bits[picture.length] = -Math.log2(Math.max(distribution(model.predict(picture))[value], 1e-30));
    picture.append(value);
  }

  const logitsAt = (picture, i) => picture.logits.subarray(i * levels, (i + 1) * levels);
  const dice = (picture, i) => distribution(logitsAt(picture, i), setting.temperature, setting.topP);
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
    if (!endings.length) {
      const shares = setting.digit === "any" ? beliefs() : null;
      for (let i = 0; i < setting.count; i++) {
        random[i] = randomNumbers(setting.seed ^ Math.imul(i, 0x9e3779b1));
        endings.push(newEnding(readings[shares ? draw(shares, random[i]) : wanted()[0]]));
      }
      announceBeliefs(shares);
      return true;
    }
    const next = endings.reduce((a, b) => (b.picture.length < a.picture.length ? b : a));
    if (next.picture.length >= Math.min(until, size * size)) {
      finish(next.picture.length < size * size ? "paused" : "done");
      return false;
    }
    if (next === endings[0]) {
      if (allowance < 1) return false;
      allowance--;
    }
    const at = next.picture.length;
    model.predict(next.picture);
    const probabilities = dice(next.picture, at);
    next.entropies[at] = entropy(probabilities);
    take(next, draw(probabilities, random[endings.indexOf(next)]));
    return true;
  }

  // --- Turns: a slice of work, then the browser's ---------------------------------------------------------------------

  const channel = new MessageChannel();
  channel.port1.onmessage = work;

  function wake() {
    if (working) return;
    working = true;
    lastSlice = performance.now();
    allowance = 1;
    channel.port2.postMessage(null);
  }

  function work() {
    const began = performance.now();
    let more = true;
    allowance = Math.min(allowance + (began - lastSlice) / 1000 * setting.speed, Math.max(1, setting.speed / 5));
    if (setting.speed === Infinity) allowance = Infinity;
    lastSlice = began;
    try {
      while (more && performance.now() - began < SLICE) more = advance();
    } catch (error) {
      more = false;
      fail(error);
    }
    seconds += (performance.now() - began) / 1000;
    render();
    working = more || mode === "playing";
    if (more) channel.port2.postMessage(null);
    else if (working) setTimeout(work, 12); // the speed allows no more just now
  }

  async function play(steps = Infinity) {
    if (mode === "done") discard();
    const length = endings.length ? Math.max(...endings.map(({ picture }) => picture.length)) : kept * size;
    until = length + steps;
    if (mode === "open") seconds = 0;
    setMode("playing");
    say(model ? "" : "Loading the model…");
    $("alert").hidden = true;
    try {
      await load();
    } catch (error) {
      return fail(error);
    }
    if (mode !== "playing") return;
    rewindReadings();
    if (!endings.length) say(setting.digit === "any" && kept ? "It reads what you gave it, once as each digit…" : "It draws…");
    wake();
  }

  function finish(how) {
    setMode(how);
    if (how === "paused") return say(`Paused before ${place(endings[chosen].picture.length)}.`);
    const scores = endings.map((ending) => bitsPerPixel(ending).toFixed(2)).join(", ");
    const test = model.header.score.bits_per_pixel.toFixed(2);
    say(`Done after ${seconds.toFixed(1)} seconds of work. Bits per pixel: ${scores}. ` +
      `The mean over its test images is ${test}.`);
  }

  function fail(error) {
    discard();
    say("");
    $("alert").hidden = false;
    $("alert").textContent = `${error.message} You can read on without it; to try again, press the button.`;
  }

  // Back to what is on the pad.
  function discard() {
    endings = [];
    chosen = 0;
    inspected = null;
    setMode("open");
  }

  function changed() {
    if (mode !== "open") say("");
    discard();
    if (model) {
      rewindReadings();
      wake(); // reading can begin before the button is pressed
    }
    showSettings();
    render();
  }

  function resize(newSize) {
    size = newSize;
    ink = new Float32Array(size * size);
    kept = 0;
    for (const name of ["pad", "map"]) $(name).width = $(name).height = size;
    live.style.setProperty("--live-size", size);
    $("examples").closest("fieldset").hidden = true; // they have another size
    showSettings();
  }

  // --- What the reader is told ------------------------------------------------------------------------------------

  function say(words) {
    $("status").textContent = words;
  }

  function setMode(name) {
    mode = name;
    $("draw").textContent = { open: "Draw the rest", playing: "Pause", paused: "Go on", done: "Draw again" }[name];
    $("save").disabled = !endings.length;
    $("frame").classList.toggle("is-open", name === "open");
  }

  const place = (i) => `row ${Math.floor(i / size) + 1}, column ${i % size + 1}`;
  const percent = (p) => (p > 0 && p < 0.01 ? "under 1 %" : `${Math.round(100 * p)} %`);

  function announceBeliefs(shares) {
    if (!shares || !kept) return say("It draws…");
    const order = shares.map((_, label) => label).sort((a, b) => shares[b] - shares[a]);
    const likely = order.filter((label, i) => i === 0 || (i < 4 && shares[label] >= 0.02));
    const words = likely.map((label) => `${label === 8 ? "an" : "a"} ${label} (${percent(shares[label])})`);
    say(`It takes this for the beginning of ${words.join(", or ")}.`);
  }

  // --- Pictures ---------------------------------------------------------------------------------------------------

  let colours = {};

  function readColours() {
    const style = getComputedStyle(live);
    for (const name of ["paper", "ink", "given", "next"]) colours[name] = rgb(style.getPropertyValue(`--live-${name}`));
    for (const swatch of document.querySelectorAll("#live-bars em")) {
      swatch.style.background = `rgb(${mix(colours.paper, colours.ink, swatch.dataset.share)})`;
    }
  }

  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.trim().slice(i, i + 2), 16));
  const mix = (a, b, share) => a.map((value, i) => value + share * (b[i] - value));
  const magma = MAGMA.map(rgb);

  function heat(share) { // from 0 to 1
    const at = Math.min(0.999, share) * (magma.length - 1);
    return mix(magma[Math.floor(at)], magma[Math.floor(at) + 1], at % 1);
  }

  // Fill a canvas with colour(i), or leave the pixel open where that is undefined.
  function paint(canvas, colour, width = size) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, width);
    for (let i = 0; i < width * width; i++) {
      const found = colour(i);
      if (found) image.data.set([...found, 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
  }

  function pixelColour(picture, i) {
    const given = i < kept * size;
    if (!picture) return given ? mix(colours.paper, colours.given, token(i) / (levels - 1)) : colours.paper;
    if (i >= picture.length) return i === picture.length && mode !== "done" ? colours.next : colours.paper;
    return mix(colours.paper, given ? colours.given : colours.ink, picture.tokens[i] / (levels - 1));
  }

  function render() {
    if (drawnFrame) return;
    drawnFrame = requestAnimationFrame(() => {
      drawnFrame = 0;
      try {
        renderNow();
      } catch (error) {
        fail(error);
      }
    });
  }

  function renderNow() {
    if (calm.matches && mode === "playing" && setting.speed === Infinity) return; // shown when it is finished
    const ending = endings[chosen];
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
    paint($("map"), (i) => (i < ending?.picture.length ? heat(ending.entropies[i] / bits) : undefined));
    $("key-end").textContent = `${Number(bits.toFixed(2))} bits`;
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
    const next = picture && picture.length < size * size ? picture.length : null;
    const at = picture && inspected !== null && inspected < picture.predicted ? inspected : next;
    $("bars-title").textContent = at === null || at === next ? "The next pixel" : "The pixel you point at";
    if (!picture || at === null) {
      for (const bar of $("bars").querySelectorAll("i")) bar.style.transform = "";
      $("bars").setAttribute("aria-label", "No prediction is shown");
      $("readout").textContent = mode === "done" ? "Point at any pixel to see what was expected there." : "\u00a0";
      return;
    }
    if (at === next) model.predict(picture);
    const own = distribution(logitsAt(picture, at)), thrown = dice(picture, at);
    const there = at < picture.length ? picture.tokens[at] : null;
    [...$("bars").children].forEach((bar, level) => {
      const [behind, front] = bar.querySelectorAll("i");
      behind.style.transform = `scaleY(${own[level].toFixed(4)})`;
      front.style.transform = `scaleY(${thrown[level].toFixed(4)})`;
      bar.classList.toggle("is-chosen", level === there);
    });
    const words = [`${place(at)}: entropy ${entropy(thrown).toFixed(2)} bits`];
    if (there !== null) words.push(`${at < kept * size ? "given" : "drawn"}: level ${there}, which had ${percent(thrown[there])}`);
    $("readout").textContent = words.join("; ").replace(/^r/, "R");
    const likely = own.map((_, level) => level).sort((a, b) => thrown[b] - thrown[a]).slice(0, 3);
    $("bars").setAttribute("aria-label",
      `Likeliest levels at ${place(at)}: ${likely.map((level) => `${level}, ${percent(thrown[level])}`).join("; ")}`);
  }

  function renderEndings() {
    const buttons = [...$("endings").children];
    const count = endings.length || setting.count;
    buttons.forEach((button, i) => {
      const ending = endings[i];
      button.hidden = i >= count;
      button.disabled = !ending;
      button.setAttribute("aria-pressed", String(Boolean(ending) && i === chosen));
      paint(button.querySelector("canvas"), (j) => pixelColour(ending?.picture, j));
      const score = ending?.picture.length ? bitsPerPixel(ending).toFixed(2) : "\u2013";
      const digit = ending && model.config.num_classes ? `${ending.picture.label === 8 ? "an" : "a"} ${ending.picture.label}: ` : "";
      button.lastChild.textContent = `${digit}${score}`;
    });
  }

  function renderBeliefs() {
    const shares = model && setting.digit === "any" && kept ? beliefs() : null;
    for (const chip of live.querySelectorAll(".live-digits input")) {
      const share = shares?.[chip.value] ?? 0;
      chip.nextSibling.style.setProperty("--belief", share.toFixed(3));
      chip.parentNode.title = shares && chip.value !== "any" ? percent(share) : "";
    }
  }

  // --- The pad ----------------------------------------------------------------------------------------------------

  // A stroke of a soft pen from one point to another, in pixels.
  function stroke(from, to) {
    const reach = setting.eraser ? 2.6 : 1.9, core = setting.eraser ? 1.4 : 0.75;
    const along = [to.x - from.x, to.y - from.y];
    const squared = along[0] ** 2 + along[1] ** 2;
    const bottom = setting.eraser ? kept : size - 1;
    for (let row = Math.max(0, Math.floor(Math.min(from.y, to.y) - 3)); row < Math.min(bottom, Math.max(from.y, to.y) + 3); row++) {
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

  function beginStroke() {
    ink.fill(0, kept * size); // what an example hides below the line is not to come up
    if (endings.length) discard();
  }

  function point(event) {
    const box = $("pad").getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width * size, y: (event.clientY - box.top) / box.height * size };
  }

  function inspect(spot) {
    const inside = spot && spot.x >= 0 && spot.y >= 0 && spot.x < size && spot.y < size;
    inspected = inside && endings.length ? Math.floor(spot.y) * size + Math.floor(spot.x) : null;
    render();
  }

  let last = null; // where the pen was, while it is down

  $("pad").addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    $("pad").setPointerCapture(event.pointerId);
    $("cursor").hidden = true;
    beginStroke();
    last = point(event);
    stroke(last, last);
  });
  $("pad").addEventListener("pointermove", (event) => {
    if (!last) return inspect(point(event));
    const events = event.getCoalescedEvents?.() ?? [];
    for (const part of events.length ? events : [event]) {
      const now = point(part);
      stroke(last, now);
      last = now;
    }
  });
  for (const name of ["pointerup", "pointercancel"]) $("pad").addEventListener(name, () => last = null);
  $("pad").addEventListener("pointerleave", () => inspect(null));
  $("map").addEventListener("pointermove", (event) => {
    const box = $("map").getBoundingClientRect();
    inspect({ x: (event.clientX - box.left) / box.width * size, y: (event.clientY - box.top) / box.height * size });
  });
  $("map").addEventListener("pointerleave", () => inspect(null));

  $("pad").addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const middle = () => ({ x: cursor.column + 0.5, y: cursor.row + 0.5 });
    const here = middle();
    if (step) {
      cursor.row = Math.max(0, Math.min(size - 1, cursor.row + step[0]));
      cursor.column = Math.max(0, Math.min(size - 1, cursor.column + step[1]));
    }
    if (event.key === " " || (step && event.shiftKey)) {
      beginStroke();
      stroke(here, middle());
    } else if (event.key === "Delete" || event.key === "Backspace") {
      beginStroke();
      if (cursor.row < kept) ink[cursor.row * size + cursor.column] = 0;
      changed();
    } else if (!step) return;
    event.preventDefault();
    showCursor();
    inspect(middle());
    const i = cursor.row * size + cursor.column;
    const level = endings.length ? "" : `, level ${i < kept * size ? token(i) : 0}`;
    requestAnimationFrame(() => requestAnimationFrame(() => {
      $("spoken").textContent = endings.length ? $("readout").textContent : place(i) + level;
    }));
  });
  $("pad").addEventListener("focus", () => $("pad").matches(":focus-visible") && showCursor());
  $("pad").addEventListener("blur", () => {
    $("cursor").hidden = true;
    inspect(null);
  });

  function showCursor() {
    $("cursor").hidden = false;
    $("cursor").style.top = `${100 * cursor.row / size}%`;
    $("cursor").style.left = `${100 * cursor.column / size}%`;
  }

  // --- Buttons ----------------------------------------------------------------------------------------------------

  $("draw").addEventListener("click", () => {
    if (mode !== "playing") return play();
    if (endings.length) return finish("paused");
    discard();
    say("");
    return render();
  });
  $("step").addEventListener("click", () => play(1));
  $("other").addEventListener("click", () => {
    $("seed").value = (setting.seed + 1) % 2 ** 31;
    discard();
    play();
  });
  $("clear").addEventListener("click", () => {
    ink.fill(0);
    kept = 0;
    changed();
    say("An empty pad: draw the top of a digit, or let the model draw all of one.");
  });
  $("rows").addEventListener("input", () => {
    kept = Number($("rows").value);
    changed();
  });
  $("save").addEventListener("click", () => {
    const scale = 10, gap = 10, width = size * scale;
    const sheet = document.createElement("canvas");
    const single = document.createElement("canvas");
    single.width = single.height = size;
    sheet.width = endings.length * (width + gap) - gap;
    sheet.height = width;
    const context = sheet.getContext("2d");
    context.imageSmoothingEnabled = false;
    endings.forEach((ending, i) => {
      paint(single, (j) => pixelColour(ending.picture, j));
      context.drawImage(single, i * (width + gap), 0, width, width);
    });
    const link = document.createElement("a");
    link.href = sheet.toDataURL("image/png");
    link.download = `digits-seed-${setting.seed}.png`;
    link.click();
  });

  function loadExample(i) {
    const digits = liveExamples.digits[i];
    ink = Float32Array.from(digits, (level) => (parseInt(level, 16) + 0.5) / liveExamples.num_levels);
    kept = Math.round(0.4 * size); // where it may still become something else
    changed();
  }

  function makeButtons() {
    $("examples").replaceChildren(...liveExamples.digits.map((digits, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-label", `The top of a ${i}`);
      button.innerHTML = '<canvas width="28" height="28"></canvas>';
      button.addEventListener("click", () => {
        loadExample(i);
        say(`The top of a ${i}, drawn by the book's larger transformer.`);
      });
      return button;
    }));
    $("digit-chips").innerHTML = ["any", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((digit) =>
      `<label><input type="radio" name="live-digit" value="${digit}"${digit === "any" ? " checked" : ""}>` +
      `<span>${digit === "any" ? "Any" : digit}</span></label>`).join("");
    $("endings").replaceChildren(...[0, 1, 2, 3].map((i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.innerHTML = `<span class="live-hidden">Ending ${i + 1},</span><canvas width="${size}" height="${size}"></canvas><span></span>`;
      button.addEventListener("click", () => {
        chosen = i;
        render();
      });
      return button;
    }));
  }

  function paintExamples() {
    [...$("examples").children].forEach((button, i) => {
      const shares = Array.from(liveExamples.digits[i], (level) => parseInt(level, 16) / (liveExamples.num_levels - 1));
      paint(button.firstChild, (j) => mix(colours.paper, colours.ink, shares[j]), 28);
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
  $("seed").addEventListener("input", changed);
  for (const input of live.querySelectorAll("[name=live-digit], [name=live-count]")) input.addEventListener("change", changed);
  new MutationObserver(() => {
    readColours();
    paintExamples();
    render();
  }).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  setMode("open");
  readColours();
  paintExamples();
  loadExample(2);
  say("Here is the top of a digit. Let the model draw the rest, or clear the pad and begin one yourself.");
}

startLivePage(document.currentScript.src);
