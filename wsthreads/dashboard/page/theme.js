// Light, dark or the system's theme. A plain script in the head, so that the first frame has the right theme.

"use strict";

{
  const THEMES = ["system", "light", "dark"];
  const KEY = "wsthreads-theme";

  const read = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // the browser may forbid storage; then the choice lasts until the page is closed
    }
  };

  let theme = THEMES.includes(read()) ? read() : "system";

  const apply = () => {
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (!button) return;
    button.textContent = { system: "◐ System", light: "○ Light", dark: "● Dark" }[theme];
    button.setAttribute("aria-label", `Theme: ${theme}`);
  };

  apply();
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
      try {
        localStorage.setItem(KEY, theme);
      } catch {
        // as above
      }
      apply();
    });
  });
}
