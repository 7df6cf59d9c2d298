// The live feed: one WebSocket, events to whoever asked, regions of the page drawn anew.
//
// A region is an element with an id and data-region="job.finished archive.*": after one of
// these events the page is fetched again and the region taken from it. Figures of running
// jobs go straight into elements below [data-job] marked with data-figure.

import { count, harmless, localTimes, size, span } from "./format.js";
import { say } from "./words.js";

const LONGEST_PAUSE_MS = 10_000;

export class Feed {
  constructor(address, seq) {
    this.address = address;
    this.seq = seq;
    this.pause = 500;
    this.listeners = [];
    this.onState = () => {};
    this.onResync = () => {};
  }

  listen(listener) {
    this.listeners.push(listener);
  }

  open() {
    const url = new URL(this.address, window.location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.searchParams.set("since", String(this.seq));
    const socket = new WebSocket(url);
    socket.onmessage = (message) => this.take(JSON.parse(message.data));
    socket.onclose = (closed) => {
      // The login ended, or may see something else now: the page is loaded again.
      if (closed.code === 4401 || closed.code === 4409) {
        this.onState("ended");
        return;
      }
      this.onState("off");
      // Spread out, so that a restarted server is not met by everybody at once.
      window.setTimeout(() => this.open(), this.pause * (0.5 + Math.random()));
      this.pause = Math.min(this.pause * 2, LONGEST_PAUSE_MS);
    };
  }

  take(message) {
    if (message.kind === "hello") {
      this.pause = 500;
      this.onState("on");
      // The server's journal is younger than this page: it was put back or made anew.
      if (message.seq < this.seq) this.onResync();
    } else if (message.kind === "resync") {
      this.seq = message.seq;
      this.onResync();
    } else if (message.kind === "events") {
      for (const event of message.events) {
        if (event.seq !== null) {
          if (event.seq <= this.seq) continue;
          this.seq = event.seq;
        }
        for (const listener of this.listeners) listener(event);
      }
    }
  }
}

function matches(patterns, type) {
  return patterns.split(/\s+/).some((pattern) =>
    pattern.endsWith("*") ? type.startsWith(pattern.slice(0, -1)) : pattern === type);
}

export class Regions {
  constructor() {
    this.timer = 0;
    this.wanted = new Set();
    this.busy = false;
    this.failures = 0;
  }

  hear(event) {
    for (const region of document.querySelectorAll("[data-region][id]")) {
      const job = region.dataset.regionJob;
      if (job && event.data.job !== job) continue;
      if (matches(region.dataset.region, event.type)) this.want(region.id);
    }
  }

  all() {
    for (const region of document.querySelectorAll("[data-region][id]")) this.want(region.id);
  }

  want(id) {
    this.wanted.add(id);
    if (!this.timer) {
      this.timer = window.setTimeout(() => this.draw(), 150 + Math.random() * 500);
    }
  }

  async draw() {
    this.timer = 0;
    if (this.busy) {
      this.timer = window.setTimeout(() => this.draw(), 500);
      return;
    }
    const ids = [...this.wanted];
    this.wanted.clear();
    this.busy = true;
    try {
      const answer = await fetch(window.location.href, { headers: { "X-Region": "yes" } });
      if (answer.status >= 500) throw new Error(String(answer.status));
      this.failures = 0;
      if (!answer.ok || answer.redirected) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const id of ids) this.replace(id, fresh);
    } catch {
      this.later(ids);
    } finally {
      this.busy = false;
    }
  }

  // The server is going or away: there may be no further event about what it told last.
  later(ids) {
    for (const id of ids) this.wanted.add(id);
    this.failures = Math.min(this.failures + 1, 6);
    const pause = 500 * 2 ** this.failures * (0.5 + Math.random());
    if (!this.timer) this.timer = window.setTimeout(() => this.draw(), Math.min(pause, LONGEST_PAUSE_MS));
  }

  replace(id, fresh) {
    const old = document.getElementById(id);
    const made = fresh.getElementById(id);
    if (!old || !made) return;
    // Never under somebody's hands.
    if (old.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) return;
    if (old.innerHTML === made.innerHTML) return;
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    const log = old.querySelector("[data-follow]");
    const scrolled = log ? log.scrollTop : 0;
    const atEnd = log ? log.scrollHeight - log.scrollTop - log.clientHeight < 40 : false;
    old.replaceChildren(...document.importNode(made, true).childNodes);
    localTimes(old);
    const again = old.querySelector("[data-follow]");
    if (again) again.scrollTop = atEnd ? again.scrollHeight : scrolled;
    if (focused) document.getElementById(focused)?.focus();
    document.dispatchEvent(new CustomEvent("region", { detail: old }));
  }
}

const speeds = new Map();

function speedOf(job, bytes) {
  const now = performance.now() / 1000;
  const seen = speeds.get(job) ?? [];
  seen.push([now, bytes]);
  while (seen.length > 2 && now - seen[0][0] > 6) seen.shift();
  speeds.set(job, seen);
  const [first, start] = seen[0];
  return now - first > 0.3 ? Math.max(0, (bytes - start) / (now - first)) : 0;
}

// What comes before a prune, a deletion or a mending, and how far that is; render.py has the same.
const LOOKED = [
  ["archives_looked_at", "archives_to_look_at", "looked-through"],
  ["archives_counted", "archives_to_count", "counted-anew"],
  ["archives_done", "archives_total", "archives-done"],
];

function looked(progress) {
  for (const [done, total, word] of LOOKED) {
    if (total in progress) return say(word, { n: count(progress[done] ?? 0), total: count(progress[total]) });
  }
  return "items" in progress ? say("items", { n: count(progress.items) }) : "";
}

export function showProgress(event) {
  if (event.type !== "job.progress") return;
  const { job, progress } = event.data;
  for (const box of document.querySelectorAll(`[data-job="${CSS.escape(job)}"]`)) {
    const read = progress.bytes_read ?? 0;
    const speed = speedOf(job, read);
    const total = Number(box.dataset.expected) || progress.bytes_total || 0;
    const texts = {
      files: count(progress.files ?? 0), bytes_read: size(read), bytes_new: size(progress.bytes_new ?? 0),
      speed: `${size(speed)}/s`, path: harmless(progress.path ?? ""),
      looked: looked(progress),
      left: total > read && speed > 0 ? say("left", { time: span((total - read) / speed) }) : "",
    };
    for (const element of box.querySelectorAll("[data-figure]")) {
      const text = texts[element.dataset.figure];
      if (text !== undefined && element.textContent !== text) element.textContent = text;
    }
    const bar = box.querySelector("progress");
    if (bar && total) {
      bar.max = total;
      bar.value = Math.min(read, total * 0.99);
    }
  }
}

export function showPhase(event) {
  if (event.type !== "job.phase") return;
  for (const box of document.querySelectorAll(`[data-job="${CSS.escape(event.data.job)}"] [data-figure="phase"]`)) {
    box.textContent = say(`phase-${event.data.phase}`, {}, event.data.phase);
  }
}
