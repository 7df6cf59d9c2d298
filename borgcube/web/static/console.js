// What every page does: times, theme, menu, copying, and the live feed.

import { localTimes, span } from "./format.js";
import { Feed, Regions, showPhase, showProgress } from "./live.js";
import { startWaiting } from "./waiting.js";
import { say } from "./words.js";

const AWAY_MS = 6000;
const root = document.documentElement;
const body = document.body;

// On a low screen the list of pages scrolls. Not by scrollIntoView: Tab would begin from there.
const here = document.querySelector(".side nav [aria-current]");
if (here) {
  const pages = here.closest("nav");
  const below = here.getBoundingClientRect().bottom - pages.getBoundingClientRect().bottom;
  if (below > 0) pages.scrollTop += below + 8;
}

localTimes(document);
window.setInterval(() => {
  localTimes(document);
  for (const element of document.querySelectorAll("[data-since]")) {
    element.textContent = span((Date.now() - Date.parse(element.dataset.since)) / 1000);
  }
}, 1000);

document.addEventListener("click", (click) => {
  const button = click.target.closest("button");
  if (!button) return;
  if (button.dataset.copy) copy(button);
  if (button.dataset.menu) toggleMenu(button);
  if ("themeSwitch" in button.dataset) switchTheme();
});

async function copy(button) {
  const text = document.getElementById(button.dataset.copy).textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without a clipboard (plain HTTP elsewhere than localhost) the text is marked instead.
    window.getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
    return;
  }
  const label = button.querySelector("span");
  label.textContent = say("copied");
  window.setTimeout(() => { label.textContent = say("copy"); }, 2000);
}

function toggleMenu(button) {
  const menu = document.getElementById(button.dataset.menu);
  const open = menu.toggleAttribute("data-open");
  button.setAttribute("aria-expanded", String(open));
}

function switchTheme() {
  const dark = root.dataset.theme === "dark"
    || (root.dataset.theme === "auto" && window.matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "light" : "dark";
  const path = body.dataset.cookiePath ?? "/";
  document.cookie = `theme=${root.dataset.theme}; path=${path}; max-age=31536000; samesite=lax`;
}

// A form that was sent is not sent twice.
document.addEventListener("submit", (submit) => {
  const button = submit.submitter;
  if (button && submit.target.method === "post") window.setTimeout(() => { button.disabled = true; });
});
window.addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("button[disabled]:not([data-disabled])")) button.disabled = false;
});

// A destructive form wants the name typed.
for (const input of document.querySelectorAll("[data-confirm]")) {
  const button = input.form.querySelector("[data-confirmed]");
  const check = () => { button.disabled = input.value !== input.dataset.confirm; };
  input.addEventListener("input", check);
  check();
}

for (const select of document.querySelectorAll("[data-submit-on-change]")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}

const search = document.querySelector("[data-log-search]");
if (search) {
  const filter = () => {
    const words = search.value.toLowerCase();
    for (const line of document.querySelectorAll("[data-follow] p")) {
      line.hidden = words !== "" && !line.textContent.toLowerCase().includes(words);
    }
  };
  search.addEventListener("input", filter);
  document.addEventListener("region", filter);
}
for (const log of document.querySelectorAll("[data-follow]")) log.scrollTop = log.scrollHeight;

if (body.dataset.live) {
  const feed = new Feed(body.dataset.live, Number(body.dataset.seq));
  const regions = new Regions();
  const state = document.querySelector("[data-live-state]");
  // A moment without an answer is nothing; longer, and the page says what to do.
  const away = document.querySelector("[data-away]");
  let missed = 0;
  feed.onState = (name) => {
    if (name === "off") {
      missed ||= window.setTimeout(() => { away.hidden = false; }, AWAY_MS);
    } else {
      window.clearTimeout(missed);
      missed = 0;
      away.hidden = true;
    }
    state.dataset.state = name === "on" ? "on" : "off";
    state.firstElementChild.textContent = say(`live-${name}`);
    root.dataset.live = name;
    if (name === "ended") window.location.reload();
  };
  feed.onResync = () => regions.all();
  feed.listen((event) => regions.hear(event));
  feed.listen(showProgress);
  feed.listen(showPhase);
  feed.open();
}
startWaiting();
