// Light, dark, or as the system has it. A plain script in the head, so that the page is never drawn in the wrong one.

"use strict";

{
  const THEMES = ["system", "light", "dark"];
  const KEY = "wsthreads-theme";

  const read = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage may be forbidden; then it lasts as long as the page
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
