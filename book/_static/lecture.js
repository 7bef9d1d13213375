// The lecture page: a figure fills the screen, and the keys Page Down and Page Up go on to the next and back.
{
  const sections = [...document.querySelectorAll(".vaekit-lecture")];
  const show = (section) => section?.requestFullscreen?.();
  for (const section of sections) {
    section.querySelector(".vaekit-show").addEventListener("click", () => {
      if (document.fullscreenElement) document.exitFullscreen();
      else show(section);
    });
  }
  document.addEventListener("fullscreenchange", () => {
    for (const section of sections) {
      section.querySelector(".vaekit-show").textContent = section === document.fullscreenElement ? "Leave full screen" : "Full screen";
    }
  });
  document.addEventListener("keydown", (event) => {
    const way = { PageDown: 1, PageUp: -1 }[event.key], at = sections.indexOf(document.fullscreenElement);
    if (!way || at < 0) return;
    event.preventDefault();
    show(sections[at + way]);
  });
}
