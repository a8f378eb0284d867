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

// Whatever scrolls sideways can be scrolled with the arrow keys.
const boxes = document.querySelectorAll(".bd-article :is(pre, table, .math)");
const watch = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const box of boxes) watch.observe(box);

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
  };
  const begin = () => {
    [still.width, still.height] = [picture.naturalWidth, picture.naturalHeight];
    still.getContext("2d").drawImage(picture, 0, 0); // the first frame, whatever is shown
    still.setAttribute("role", "img");
    still.setAttribute("aria-label", picture.alt);
    button.className = "play";
    button.addEventListener("click", () => {
      playing = !playing;
      if (playing) again();
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
