/** Access to the document, shared by all parts of the page. */

/** @param {string} id @returns {any} */
export const element = (id) => document.getElementById(id);

/**
 * Shows an error next to the control that caused it; without `words`, hides it.
 * @param {string} place the notice's id, without "-notice"
 * @param {string} [words]
 */
export function tell(place, words = "") {
  const notice = element(`${place}-notice`);
  notice.textContent = words;
  notice.hidden = words === "";
  if (words) notice.scrollIntoView({ block: "nearest" });
}

/** @param {number} value */
export const grouped = (value) => value.toLocaleString("en");

/** @param {string} name of a tab */
export function showTab(name) {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.id === `${name}-tab`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.setAttribute("tabindex", chosen ? "0" : "-1");
    element(/** @type {string} */ (tab.getAttribute("aria-controls"))).hidden = !chosen;
  }
}

/** @param {Blob} blob @param {string} name */
export function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
}
