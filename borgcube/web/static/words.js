// The scripts' words, in the page's language: the server sends them with every page.

const root = document.documentElement;
const words = JSON.parse(root.dataset.words ?? "{}");

// Fills %(name)s in the words called so; what has no words is shown as `otherwise`.
export function say(name, values = {}, otherwise = name) {
  const found = words[name] ?? otherwise;
  return found.replace(/%\((\w+)\)s/g, (all, key) => String(values[key] ?? all));
}

// Times past and ahead come in the browser's own words for that language.
let relative;
try {
  relative = new Intl.RelativeTimeFormat(root.lang || "en", { numeric: "always" });
} catch {
  relative = new Intl.RelativeTimeFormat("en", { numeric: "always" });
}

export function ago(seconds) {
  const size = Math.abs(seconds);
  if (size < 5) return say("just-now");
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]]) {
    if (size >= length * (unit === "hour" ? 1.5 : 1)) {
      return relative.format(-Math.sign(seconds) * Math.floor(size / length), unit);
    }
  }
  return say("just-now");
}
