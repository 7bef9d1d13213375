// Loaded before everything else on a page.

// Font Awesome must leave icons alone that widgets put in later, or it breaks the widgets.
window.FontAwesomeConfig = { observeMutations: false };

// The widgets' renderer asks MathJax 2 (MathJax.Hub.Queue) to typeset a label; pass the request on to MathJax 3.
{
  const hub = {
    Queue(...requests) {
      const mathjax = window.MathJax;
      if (!mathjax.startup) return; // a page without mathematics
      for (const [, , element] of requests) {
        mathjax.startup.promise = mathjax.startup.promise.then(() => mathjax.typesetPromise(element ? [element] : undefined));
      }
    },
  };
  let current = Object.defineProperty({}, "Hub", { value: hub });
  Object.defineProperty(window, "MathJax", {
    configurable: true,
    get: () => current,
    set(value) {
      current = value;
      if (!("Hub" in value)) Object.defineProperty(value, "Hub", { value: hub });
    },
  });
}

// What is folded in a cell tagged as a solution is called that.
document.addEventListener("DOMContentLoaded", () => {
  for (const title of document.querySelectorAll(".cell.tag_solution > details > summary > p")) {
    title.textContent = title.textContent.replace("code", "the solution");
  }
});

// A wide table scrolls by itself; without this a keyboard could not reach what is cut off.
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".pst-scrollable-table-container, div.output, pre")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});
