// What the pages do in the browser: listen for changes, open dialogs, say what happened, change the colours.
"use strict";

// The text, with commands that stand in backticks in a fixed font, as the server writes them into a page.
const say = (node, text) => {
  const parts = text.split("`");
  const isPaired = parts.length % 2 === 1;
  const code = (part) => Object.assign(document.createElement("code"), { textContent: part });
  node.replaceChildren(...(isPaired ? parts.map((part, place) => (place % 2 ? code(part) : part)) : [text]));
};
window.say = say;

const told = (text, isProblem = false) => {
  const box = document.getElementById("told");
  say(box, text);
  box.className = `told shown${isProblem ? " problem" : ""}`;
  clearTimeout(told.timer);
  told.timer = setTimeout(() => box.classList.remove("shown"), isProblem ? 12000 : 6000);
};
window.told = told;

// --- the feed of changes -----------------------------------------------------------------------------------------------

let feed = null;
let wasLost = false;

const sayConnection = (text) => {
  const line = document.getElementById("connection");
  if (line) line.textContent = text;
  document.body.classList.toggle("lost", text !== "");
};

const refresh = () => {
  // A refresh would close an open dialog and lose what was typed into it; the next change brings the page up to date.
  if (document.querySelector("dialog[open]")) return void (refresh.isDue = true);
  refresh.isDue = false;
  htmx.trigger(document.body, "ledger");
};

const connect = () => {
  if (feed || !document.body.dataset.feed || document.hidden) return;
  feed = new EventSource(document.body.dataset.feed);
  feed.addEventListener("open", () => {
    sayConnection("");
    if (wasLost) told("Connected again. This is the present state.");
    wasLost = false;
  });
  feed.addEventListener("ledger", (event) => {
    const version = String(JSON.parse(event.data).version);
    if (connect.version !== version) refresh();
    connect.version = version;
  });
  feed.addEventListener("training", (event) => {
    const training = JSON.parse(event.data);
    say(document.getElementById("training-line"), training.line);
    document.dispatchEvent(new CustomEvent("training", { detail: training }));
  });
  feed.addEventListener("error", () => {
    wasLost = true;
    connect.version = "lost";
    sayConnection("Connection lost. What you see is as of then; connecting again …");
    if (feed.readyState === EventSource.CLOSED) {
      feed = null;
      clearTimeout(connect.timer);
      connect.timer = setTimeout(connect, 2000);
    }
  });
};

const disconnect = () => {
  if (feed) feed.close();
  feed = null;
  connect.version = "hidden";
};

connect.version = document.body.dataset.version; // of what the page shows; it may have changed since then
document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
window.addEventListener("pagehide", disconnect);
window.addEventListener("pageshow", connect);

// --- merging in a page's new state -------------------------------------------------------------------------------------

// What was opened, typed and chosen stays. A hidden field is the page's own: it says what the button beside it acts on. So
// are the choices of a dialog, which is closed whenever a state is merged in.
const STAYS = { open: "details, dialog", value: "input:not([type=hidden]), textarea" };
STAYS.checked = STAYS.selected = ":not(dialog *)";
Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => !(STAYS[name] && node.matches(STAYS[name]));
Idiomorph.defaults.callbacks.beforeNodeMorphed = (old, fresh) => {
  if (old.nodeType !== 1) return true;
  if (old.matches("figure.chart") && fresh.matches("figure.chart")) {
    old.dataset.version = fresh.dataset.version; // charts.js draws it again if that has changed
    old.dataset.source = fresh.dataset.source;
    return false;
  }
  return !old.hasAttribute("data-kept");
};
// Idiomorph leaves out everything within the focused element then: a region of a table, or all of <main>, would go stale.
document.addEventListener("htmx:beforeSwap", () => {
  Idiomorph.defaults.ignoreActiveValue = document.activeElement?.matches("input, textarea, select") ?? false;
});

// The keyboard scrolls only what it can reach.
const reachScrolled = () => {
  for (const node of document.querySelectorAll("main pre, main .text, main .rowtext"))
    if (node.scrollHeight > node.clientHeight + 1 && getComputedStyle(node).overflowY === "auto") node.tabIndex = 0;
};
document.addEventListener("toggle", reachScrolled, true);

document.addEventListener("htmx:afterSwap", () => {
  showTimes();
  reachScrolled();
  document.dispatchEvent(new Event("redraw"));
});

// --- actions -----------------------------------------------------------------------------------------------------------

document.addEventListener("told", (event) => told(event.detail.value ?? event.detail));

document.addEventListener("htmx:responseError", (event) => {
  const xhr = event.detail.xhr;
  let text = `The page answered ${xhr.status}.`;
  try {
    text = JSON.parse(xhr.responseText).error;
  } catch {
    if (xhr.responseText && xhr.responseText.length < 300) text = xhr.responseText;
  }
  if (event.detail.requestConfig.verb !== "get" || xhr.status < 500) told(text, true);
});

document.addEventListener("htmx:sendError", (event) => {
  if (event.detail.requestConfig.verb !== "get") told("The page cannot be reached, so nothing was sent. Try again.", true);
});

document.addEventListener("htmx:afterRequest", (event) => {
  const dialog = event.target.closest?.("dialog");
  if (dialog && event.detail.successful) {
    dialog.close();
    event.target.reset?.();
  }
});

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-opens]");
  if (opener) document.getElementById(opener.dataset.opens)?.showModal();
  if (event.target.closest("[data-closes]")) event.target.closest("dialog")?.close();
  if (event.target.matches("dialog")) event.target.close(); // the backdrop
});

document.addEventListener("close", () => refresh.isDue && refresh(), true);

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copies]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copies);
  told("Copied.");
});

reachScrolled();
connect();
