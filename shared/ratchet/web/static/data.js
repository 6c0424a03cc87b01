// Files dropped on the page Data: each is sent as it is, with a bar of its progress, and then its own page shows the check.
"use strict";

(() => {
  const waiting = [];
  let current = null;
  let several = false;

  const zone = () => document.getElementById("drop");
  const bytes = (n) => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let place = 0;
    while (n >= 1000 && place < units.length - 1) [n, place] = [n / 1000, place + 1];
    return `${Number(n.toPrecision(3))} ${units[place]}`;
  };

  const line = (file) => {
    const item = document.createElement("li");
    const name = Object.assign(document.createElement("span"), { className: "name", textContent: file.name });
    const bar = Object.assign(document.createElement("progress"), { className: "meter", max: 1, value: 0 });
    bar.setAttribute("aria-label", `${file.name}: sent so far`);
    const state = Object.assign(document.createElement("span"), { className: "muted", textContent: "waits" });
    const stop = Object.assign(document.createElement("button"), { className: "quiet", type: "button", textContent: "Cancel" });
    item.append(name, " ", state, bar, stop);
    document.getElementById("uploads").append(item);
    return { item, bar, state, stop };
  };

  const fail = (shown, text) => {
    shown.bar.remove();
    shown.stop.remove();
    shown.state.className = "problem";
    shown.state.textContent = text;
  };

  const answerOf = (request) => {
    try {
      return JSON.parse(request.responseText);
    } catch {
      return {};
    }
  };

  const send = ({ file, shown }) =>
    new Promise((resolve) => {
      const fields = new FormData(document.getElementById("drop-form"));
      const query = new URLSearchParams({ name: file.name });
      for (const [name, value] of fields) if (typeof value === "string" && value.trim()) query.append(name, value.trim());
      const request = new XMLHttpRequest();
      current = request;
      request.open("POST", `/data/files?${query}`);
      for (const [name, value] of Object.entries(JSON.parse(document.body.getAttribute("hx-headers"))))
        request.setRequestHeader(name, value);
      request.setRequestHeader("content-type", "application/octet-stream");
      request.upload.addEventListener("progress", (event) => {
        if (!event.lengthComputable) return;
        shown.bar.value = event.total ? event.loaded / event.total : 1;
        shown.state.textContent = `${bytes(event.loaded)} of ${bytes(event.total)}`;
      });
      request.addEventListener("load", () => {
        const answer = answerOf(request);
        if (request.status === 201) {
          shown.bar.remove();
          shown.stop.remove();
          shown.state.textContent = "has arrived, and is being checked";
          const link = Object.assign(document.createElement("a"), { href: answer.job, textContent: "See the result" });
          shown.item.append(" ", link);
          resolve(answer.job);
        } else {
          const login = request.getResponseHeader("hx-redirect");
          if (login) location.assign(login);
          fail(shown, answer.error || request.responseText.slice(0, 300) || `The page answered ${request.status}.`);
          resolve(null);
        }
      });
      request.addEventListener("error", () => {
        fail(shown, "The connection was lost, so nothing was kept of it. Choose it again; a file or folder that cannot be read ends like this too.");
        resolve(null);
      });
      request.addEventListener("abort", () => {
        fail(shown, "Cancelled; nothing was kept of it.");
        resolve(null);
      });
      shown.stop.addEventListener("click", () => request.abort());
      request.send(file);
    });

  const work = async () => {
    if (current) return;
    while (waiting.length) {
      const job = await send(waiting.shift());
      current = null;
      if (job && !several) location.assign(job);
    }
    several = false;
    window.htmx?.trigger(document.body, "ledger");
  };

  const take = (files) => {
    if (!zone() || !files.length) return;
    several = several || current !== null || files.length > 1;
    const most = Number(zone().dataset.most);
    for (const file of files) {
      const shown = line(file);
      if (file.size > most) fail(shown, `It has ${bytes(file.size)}, and the disk has room for a file of ${bytes(most)} and its rows.`);
      else waiting.push({ file, shown });
    }
    work();
  };

  const hasFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  let depth = 0;
  const mark = (is) => zone()?.classList.toggle("is-over", is);

  document.addEventListener("dragenter", (event) => {
    if (!hasFiles(event) || !zone()) return;
    depth += 1;
    mark(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    depth = Math.max(0, depth - 1);
    if (!depth) mark(false);
  });
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event) || !zone()) return;
    event.preventDefault(); // without this the browser would open the file
    event.dataTransfer.dropEffect = "copy";
  });
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event) || !zone()) return;
    event.preventDefault();
    depth = 0;
    mark(false);
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.());
    if (entries.some((entry) => entry?.isDirectory)) window.told("A folder cannot be dropped here: drop its files.", true);
    take([...event.dataTransfer.files].filter((_, place) => !entries[place]?.isDirectory));
  });
  document.addEventListener("change", (event) => {
    if (event.target.id !== "drop-file") return;
    take([...event.target.files]);
    event.target.value = "";
  });
  window.addEventListener("beforeunload", (event) => {
    if (current || waiting.length) event.preventDefault();
  });
})();
