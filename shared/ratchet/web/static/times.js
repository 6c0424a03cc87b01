// Shows times in the viewer's zone, and how long ago they were.
"use strict";

const elapsed = (seconds) => {
  const s = Math.max(0, Math.round(seconds));
  if (s < 100) return `${s} s`;
  if (s < 6000) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${(s / 3600).toFixed(1)} h` : `${(s / 86400).toFixed(1)} d`;
};

const clockOf = (moment) => {
  const time = moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return moment.toDateString() === new Date().toDateString() ? time : `${moment.toLocaleDateString()} ${time}`;
};

const showTimes = () => {
  for (const node of document.querySelectorAll("time[datetime]")) {
    const moment = new Date(node.getAttribute("datetime"));
    const age = (Date.now() - moment) / 1000;
    const style = node.dataset.style;
    const text = style === "ago" ? `${elapsed(age)} ago` : style === "for" ? elapsed(age) : clockOf(moment);
    if (node.textContent !== text) node.textContent = text;
    node.title = moment.toLocaleString([], { dateStyle: "full", timeStyle: "long" });
  }
};

showTimes();
setInterval(showTimes, 5000);
