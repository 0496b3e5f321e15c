// Search on the launch page. Everything else on it works without.
(function () {
  const root = document.getElementById("dmsp-launch");
  const box = document.getElementById("dmsp-search");
  const said = document.getElementById("dmsp-matches");
  const cards = Array.from(root.querySelectorAll(".dmsp-card"));
  const shelves = Array.from(root.querySelectorAll(".dmsp-shelf"));
  const matching = () => cards.filter((card) => !card.classList.contains("dmsp-other"));

  function search() {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const card of cards) {
      const hit = words.every((word) => card.dataset.words.includes(word));
      card.classList.toggle("dmsp-other", !hit);
      // What would be started stays in sight.
      card.hidden = !hit && !card.querySelector("input[type=radio]").checked;
    }
    for (const shelf of shelves) {
      shelf.hidden = !shelf.querySelector(".dmsp-card:not([hidden])");
    }
    const found = matching().length;
    said.textContent = !words.length ? "" : found ? `${found} of ${cards.length} match.` : "Nothing matches.";
  }

  box.addEventListener("input", search);
  root.addEventListener("change", search);
  box.addEventListener("keydown", (event) => {
    // Enter goes to what was found: it must not start a session in passing.
    if (event.key === "Enter") {
      event.preventDefault();
      const first = matching()[0];
      if (first) {
        const radio = first.querySelector("input[type=radio]");
        radio.checked = true;
        radio.focus();
        search();
      }
    } else if (event.key === "Escape" && box.value) {
      event.preventDefault();
      box.value = "";
      search();
    }
  });
  box.closest(".dmsp-search").hidden = false;
})();
