// The conversation of the Playground: it is kept in this tab, asks all models at once, and shows answers as they grow.
// Answers are text: nothing in them becomes markup.
"use strict";

(() => {
  const KEY = "playground";
  const MOST_EXCHANGES = 100;
  const NEAR_PX = 120;
  const talk = document.getElementById("talk");
  const form = document.getElementById("ask");
  if (!talk || !form) return;

  const box = document.getElementById("playground");
  const columns = JSON.parse(box.dataset.columns);
  const labels = JSON.parse(box.dataset.labels);
  const question = form.elements.question;
  const [send, stop, clear] = ["send", "stop", "clear"].map((id) => document.getElementById(id));
  const running = new Map(); // of answers that are under way: their AbortController by "exchange model"

  // --- what is kept ------------------------------------------------------------------------------------------------------

  const kept = () => {
    try {
      const found = JSON.parse(sessionStorage.getItem(KEY));
      if (found && Array.isArray(found.exchanges)) return found;
    } catch {
      // what another version has kept is of no use
    }
    return { exchanges: [], draft: "", options: {} };
  };
  const state = kept();
  for (const each of state.exchanges) {
    for (const answer of Object.values(each.answers)) {
      if (answer.state === "running") {
        answer.state = "stopped";
        answer.problem = "The page was left before this answer was complete.";
      }
    }
  }

  const keep = () => {
    state.draft = question.value;
    for (const name of ["temperature", "max_tokens", "task"]) state.options[name] = form.elements[name].value;
    try {
      sessionStorage.setItem(KEY, JSON.stringify(state));
    } catch {
      // too much for the browser to keep: the conversation lasts as long as the page
    }
  };
  let keepTimer = null;
  const keepSoon = () => {
    keepTimer ??= setTimeout(() => {
      keepTimer = null;
      keep();
    }, 1000);
  };

  // --- showing -----------------------------------------------------------------------------------------------------------

  const nodes = new Map(); // "exchange model" to the section that shows the answer
  const nameOf = (key) => labels[columns.indexOf(key)] ?? (key === "live" ? "live" : key === "0" ? "base" : `#${key}`);
  const shape = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);
  const set = (node, text) => {
    node.hidden = text === "" || text === undefined;
    if (node.textContent !== (text ?? "")) node.textContent = text ?? "";
  };
  const isAtEnd = () => form.getBoundingClientRect().top < window.innerHeight + NEAR_PX;
  const toTheEnd = () => send.parentElement.scrollIntoView({ block: "nearest" });

  const showAnswer = (exchange, key) => {
    const node = nodes.get(`${exchange.id} ${key}`);
    const answer = exchange.answers[key];
    if (!node) return;
    const part = (name) => node.querySelector(`.${name}`);
    part("name").textContent = nameOf(key).split(",")[0];
    const from = part("from");
    from.hidden = answer?.ordinal === undefined || answer?.ordinal === null;
    if (!from.hidden) {
      set(from, `#${answer.ordinal}`);
      from.href = `/checkpoints/${answer.ordinal}`;
      from.setAttribute("aria-label", `answered by #${answer.ordinal}`);
      part("name").hidden = key !== "live" && key !== "0";
    }
    const isRunning = answer?.state === "running";
    node.setAttribute("aria-busy", String(isRunning));
    set(part("state"), isRunning ? "answering" : answer?.state === "stopped" ? "stopped" : "");
    set(part("waits"), !answer ? "It was not asked this." : isRunning && !answer.text ? answer.note || "waiting …" : "");
    const text = node.querySelector("div.text");
    const said = answer?.text ?? "";
    if (text.firstChild?.nodeType === 3 && said.startsWith(text.firstChild.data)) {
      text.firstChild.appendData(said.slice(text.firstChild.data.length));
    } else {
      text.textContent = said;
    }
    text.hidden = !said && answer?.state !== "done";
    text.classList.toggle("is-empty", !said && answer?.state === "done");
    part("problem").hidden = !answer?.problem;
    window.say(part("problem"), answer?.problem ?? "");
    showFacts(part("sure"), part("count"), answer);
    const copy = part("copy");
    copy.hidden = !said || isRunning;
    if (said && !isRunning) copy.dataset.copies = said;
    part("keep").hidden = !said || isRunning;
    part("again").hidden = isRunning || (answer?.state === "done" && !answer.problem);
  };

  const showFacts = (sure, count, answer) => {
    const isDone = answer?.state === "done";
    const isKnown = isDone && typeof answer.confidence === "number";
    set(sure, isKnown ? `${(100 * answer.confidence).toFixed(0)} % sure${answer.should_abstain ? ": too unsure to rely on" : ""}` : "");
    sure.className = `badge sure ${answer?.should_abstain ? "warn" : answer?.should_abstain === false ? "ok" : ""}`;
    const facts = [];
    if (isDone && typeof answer.tokens === "number") facts.push(`${answer.tokens} token${answer.tokens === 1 ? "" : "s"}`);
    if (isDone && typeof answer.seconds === "number") facts.push(`${answer.seconds.toFixed(1)} s`);
    if (isDone && answer.finish_reason === "length") facts.push("cut at the most tokens");
    if (isDone && !isKnown) facts.push("states no confidence");
    count.textContent = facts.join(" · ");
  };

  const showExchange = (exchange) => {
    const node = shape("exchange-shape");
    node.querySelector(".question .text").textContent = exchange.question;
    const side = node.querySelector(".side-by-side");
    side.classList.add(`models${columns.length}`);
    for (const key of columns) {
      const section = shape("answer-shape");
      section.setAttribute("aria-label", `Answer of ${nameOf(key)}`);
      section.querySelector(".again").addEventListener("click", () => ask(exchange, key));
      section.querySelector(".keep").addEventListener("click", () => saveAs(exchange, key));
      nodes.set(`${exchange.id} ${key}`, section);
      side.append(section);
    }
    talk.append(node);
    for (const key of columns) showAnswer(exchange, key);
  };

  const showButtons = () => {
    stop.hidden = running.size === 0;
    clear.hidden = state.exchanges.length === 0;
    send.disabled = running.size > 0;
  };

  const showServer = async () => {
    const line = document.getElementById("server-line");
    try {
      const found = await (await fetch("/playground/server")).json();
      const loaded = found.loaded?.length ? ` Also in memory: ${found.loaded.join(", ")}.` : "";
      const live = found.live ? `${found.live} is live.` : "Nothing is live yet.";
      window.say(line, found.problem ?? `${live}${loaded} Others are loaded when you ask them.`);
      line.classList.toggle("caution", Boolean(found.problem));
    } catch {
      // the page itself is away, which the line at the top says
    }
  };

  // --- asking ------------------------------------------------------------------------------------------------------------

  const turnsFor = (exchange, key) => {
    const turns = [];
    for (const each of state.exchanges) {
      if (each === exchange) break;
      const answer = each.answers[key];
      if (answer?.state === "done" && answer.text) {
        turns.push({ role: "user", content: each.question }, { role: "assistant", content: answer.text });
      }
    }
    return [...turns, { role: "user", content: exchange.question }];
  };

  const ask = async (exchange, key) => {
    const place = `${exchange.id} ${key}`;
    if (running.has(place)) return;
    const controller = new AbortController();
    running.set(place, controller);
    const answer = (exchange.answers[key] = { state: "running", text: "" });
    showAnswer(exchange, key);
    showButtons();
    const began = performance.now();
    try {
      await stream(exchange, key, answer, controller.signal);
      answer.seconds = (performance.now() - began) / 1000;
    } catch (error) {
      answer.state = "stopped";
      if (error.name !== "AbortError") {
        answer.problem = error instanceof Said ? error.message : "The page cannot be reached; what had come is kept. Ask again in a moment.";
      }
    } finally {
      running.delete(place);
      showAnswer(exchange, key);
      showButtons();
      keep();
    }
  };

  class Said extends Error {}

  const stream = async (exchange, key, answer, signal) => {
    const chat = { model: key, messages: turnsFor(exchange, key), ...exchange.options };
    const response = await fetch("/playground/answer", {
      method: "POST",
      headers: JSON.parse(document.body.getAttribute("hx-headers")),
      body: new URLSearchParams({ chat: JSON.stringify(chat) }),
      signal,
    });
    if (response.status === 401) location.assign(response.headers.get("hx-redirect") ?? "/login");
    if (!response.ok) throw new Said((await problemOf(response)) ?? `The page answered ${response.status}.`);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let unread = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (unread + value).split("\n");
      unread = lines.pop();
      const follows = isAtEnd();
      for (const line of lines) take(JSON.parse(line), answer);
      showAnswer(exchange, key);
      if (follows) toTheEnd();
      keepSoon();
    }
    if (answer.state === "running") throw new Said("The page went away in the middle of the answer; what had come is kept.");
  };

  const problemOf = async (response) => {
    const text = await response.text();
    try {
      return JSON.parse(text).error;
    } catch {
      return text.length < 300 ? text : undefined;
    }
  };

  const take = (event, answer) => {
    if (event.state !== undefined) answer.note = event.state;
    if (event.from) Object.assign(answer, event.from);
    if (event.text !== undefined) answer.text += event.text;
    if (event.problem !== undefined) Object.assign(answer, { state: "stopped", problem: event.problem });
    if (event.done) Object.assign(answer, event.done, { state: "done", note: "" });
  };

  const askAll = async () => {
    const text = question.value.trim();
    if (!text || running.size) return;
    const options = { temperature: Number(form.elements.temperature.value) || 0 };
    options.max_tokens = Math.max(1, Math.round(Number(form.elements.max_tokens.value)) || 256);
    if (form.elements.task.value) options.task = form.elements.task.value;
    const exchange = { id: `${Date.now()}-${Math.random().toString(36).slice(2, 8)}`, question: text, options, answers: {} };
    state.exchanges = [...state.exchanges, exchange].slice(-MOST_EXCHANGES);
    question.value = "";
    const address = new URL(location.href);
    address.searchParams.delete("ask");
    history.replaceState(history.state, "", address);
    showExchange(exchange);
    toTheEnd();
    await Promise.all(columns.map((key) => ask(exchange, key)));
    document.getElementById("talk-status").textContent = columns.length > 1 ? "All have answered." : "It has answered.";
    showServer();
  };

  const saveAs = (exchange, key) => {
    const dialog = document.getElementById("save");
    const fields = dialog.querySelector("form").elements;
    fields.question.value = exchange.question;
    fields.answer.value = exchange.answers[key].text.trim();
    if (!fields.task.value) fields.task.value = exchange.options.task ?? "";
    dialog.showModal();
  };

  // --- choosing models -----------------------------------------------------------------------------------------------------

  const goTo = (keys) => {
    keep();
    const parameters = new URLSearchParams(keys.map((key) => ["model", key]));
    location.assign(`/playground?${parameters}`);
  };
  const chosen = () => [...document.querySelectorAll("#models select")].map((select) => select.value);

  document.addEventListener("change", (event) => {
    if (event.target.closest("#models")) goTo(chosen());
  });
  document.addEventListener("click", (event) => {
    const leaves = event.target.closest("[data-leaves]");
    if (leaves) goTo(columns.filter((key) => key !== leaves.dataset.leaves));
    if (event.target.closest("#add-model")) {
      const offered = [...document.querySelector("#models select").options].map((option) => option.value);
      const next = ["live", "0", ...offered].find((key) => !columns.includes(key) && offered.includes(key));
      if (next) goTo([...columns, next]);
    }
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    askAll();
  });
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    askAll();
  });
  form.addEventListener("input", keepSoon);
  stop.addEventListener("click", () => running.forEach((controller) => controller.abort()));
  clear.addEventListener("click", () => {
    running.forEach((controller) => controller.abort());
    state.exchanges = [];
    nodes.clear();
    talk.replaceChildren();
    showButtons();
    keep();
    question.focus();
  });
  window.addEventListener("pagehide", keep);

  // --- the beginning -------------------------------------------------------------------------------------------------------

  for (const [name, value] of Object.entries(state.options)) if (value && form.elements[name]) form.elements[name].value = value;
  question.value = box.dataset.ask || state.draft || "";
  state.exchanges.forEach(showExchange);
  showButtons();
  showServer();
  if (box.dataset.ask) question.focus();
})();
