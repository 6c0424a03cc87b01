// Light or dark, as the viewer chose. Runs before the page is drawn, so that it does not flash in the other colours.
"use strict";

const setTheme = (theme) => (document.documentElement.dataset.theme = theme);

try {
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") setTheme(chosen);
} catch {
  // A browser that keeps nothing has the colours of its system.
}

document.addEventListener("click", (event) => {
  if (!event.target.closest("#theme")) return;
  const { theme } = document.documentElement.dataset;
  const isDark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(isDark ? "light" : "dark");
  try {
    localStorage.setItem("theme", document.documentElement.dataset.theme);
  } catch {
    // as above
  }
  document.dispatchEvent(new CustomEvent("redraw", { detail: "colours" }));
});
