// The page of a new client waits until the login works, and turns green by itself.

const EVERY_MS = 3000;
// A login that is refused again and again looks like an attack to the client.
const LOGIN_EVERY_MS = 15_000;

export function startWaiting() {
  const box = document.querySelector("[data-wait-for]");
  if (!box) return;
  const said = box.querySelector("[data-wait-said]");
  let last = "";

  async function look() {
    if (document.hidden) {
      window.setTimeout(look, EVERY_MS);
      return;
    }
    try {
      const answer = await fetch(box.dataset.waitFor, {
        method: "POST",
        headers: { "X-CSRF-Token": box.dataset.waitToken, Accept: "application/json" },
      });
      if (answer.ok) {
        const { state, message } = await answer.json();
        if (state !== box.dataset.waitState) {
          window.location.href = `${box.dataset.waitPage}?state=${encodeURIComponent(state)}`;
          return;
        }
        if (message !== last) {
          last = message;
          said.textContent = message;
        }
      }
    } catch {
      // The server is away for a moment; look again.
    }
    window.setTimeout(look, box.dataset.waitState === "login" ? LOGIN_EVERY_MS : EVERY_MS);
  }
  window.setTimeout(look, 500);
}
