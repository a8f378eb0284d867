// What pages do besides what the theme does: print, scroll by keyboard, and stop what moves.
"use strict";

// On paper a page is light, and its folds are open.
const page = document.documentElement;
let theme, folded = [];
addEventListener("beforeprint", () => {
  theme = page.dataset.theme;
  page.dataset.theme = "light";
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const fold of folded) fold.open = true;
});
addEventListener("afterprint", () => {
  page.dataset.theme = theme;
  for (const fold of folded) fold.open = false;
});

// Pictures far down wait until the page is there. Then they come too: paper and trains without a network need them.
addEventListener("load", () => setTimeout(() => {
  if (navigator.connection?.saveData) return;
  for (const picture of document.querySelectorAll("img[loading=lazy]")) picture.loading = "eager";
}));

// Tables and formulas that scroll sideways can be scrolled with the arrow keys; the theme sees to code.
const reach = () => {
  for (const box of document.querySelectorAll(".bd-article :is(table, div.math)")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
};
addEventListener("resize", reach);
addEventListener("load", async () => {
  await window.MathJax?.startup.promise; // formulas have their sizes
  reach();
});

// An animation can be stopped, and played again from its beginning. While it rests, its first frame is shown.
for (const picture of document.querySelectorAll(".bd-article img:is([src*='.gif'], [src^='data:image/gif'])")) {
  const still = document.createElement("canvas"), button = document.createElement("button");
  const address = picture.src;
  let playing = true, round = 0;
  const show = () => {
    picture.hidden = !playing;
    still.hidden = playing;
    button.textContent = playing ? "Stop" : "Play";
  };
  const again = async () => {
    const data = address.startsWith("data:") && await (await fetch(address)).blob();
    picture.src = data ? URL.createObjectURL(data) : `${address}?${++round}`; // as if it were new
    await picture.decode().catch(() => {}); // until then the still is in its place
  };
  const begin = () => {
    [still.width, still.height] = [picture.naturalWidth, picture.naturalHeight];
    still.getContext("2d").drawImage(picture, 0, 0); // the first frame, whatever is shown
    still.setAttribute("role", "img");
    still.setAttribute("aria-label", picture.alt);
    button.className = "play";
    button.addEventListener("click", async () => {
      playing = !playing;
      if (playing) await again();
      show();
    });
    picture.parentElement.querySelector("source")?.remove(); // the still for those who want no motion
    picture.after(still, button);
    playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    show();
  };
  if (picture.complete) begin();
  else picture.addEventListener("load", begin, { once: true });
}

// Below a search result stands a piece of the page: of its text, not of its buttons and formulas.
if (typeof Search !== "undefined") {
  const textOf = Search.htmlToText;
  Search.htmlToText = (source, anchor) => {
    const found = new DOMParser().parseFromString(source, "text/html");
    for (const each of found.querySelectorAll(".bd-header-article, .onlyprint, .elsewhere, summary, div.math")) each.remove();
    for (const each of found.querySelectorAll("span.math")) each.textContent = each.textContent.replace(/\\\W?/g, "");
    return textOf(found.documentElement.outerHTML, anchor);
  };
}
