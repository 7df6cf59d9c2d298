// How values are shown in the browser; the same forms as on the server.

import { ago } from "./words.js";

export function size(value) {
  if (typeof value !== "number") return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let number = value;
  let unit = 0;
  while (Math.abs(number) >= 1024 && unit < units.length - 1) {
    number /= 1024;
    unit += 1;
  }
  if (unit === 0) return `${Math.round(number)} B`;
  return `${number.toFixed(Math.abs(number) >= 100 ? 0 : 1)} ${units[unit]}`;
}

export function count(value) {
  return typeof value === "number" ? value.toLocaleString("en-US") : "–";
}

export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const hours = Math.floor(whole / 3600);
  const two = (number) => String(number).padStart(2, "0");
  const rest = `${hours ? two(Math.floor((whole % 3600) / 60)) : Math.floor(whole / 60)}:${two(whole % 60)}`;
  return hours ? `${hours}:${rest}` : rest;
}

// A client may have chosen any name: control and format characters are shown as escapes.
export function harmless(text) {
  return String(text).slice(0, 1000).replace(/[\p{C}]/gu, (char) => `\\x${char.codePointAt(0).toString(16)}`);
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
const DAY_AND_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

// Shows every <time> in the viewer's zone, with the exact value on hover.
export function localTimes(root) {
  const now = Date.now();
  for (const element of root.querySelectorAll('time[data-form="clock"]:not([data-shown])')) {
    // A log has many of them, and they never change.
    const when = new Date(element.dateTime);
    element.dataset.shown = "";
    if (Number.isNaN(when.getTime())) continue;
    element.textContent = CLOCK.format(when);
    element.title = EXACT.format(when);
  }
  for (const element of root.querySelectorAll('time[datetime]:not([data-form="clock"])')) {
    const when = new Date(element.dateTime);
    if (Number.isNaN(when.getTime())) continue;
    const past = (now - when.getTime()) / 1000;
    const words = ago(past);
    const exact = EXACT.format(when);
    const text = element.dataset.form === "ago" ? words : DAY_AND_TIME.format(when);
    if (element.textContent !== text) element.textContent = text;
    const title = element.dataset.form === "ago" ? exact : `${words}, ${exact}`;
    if (element.title !== title) element.title = title;
  }
}
