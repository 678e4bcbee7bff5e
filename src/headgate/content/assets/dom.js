// @ts-check
// Elements without markup in strings: what a model wrote is text here, and never HTML.

/** @param {string} id @returns {any} */
export const at = (id) => document.getElementById(id);

/**
 * An element.
 * @param {string} tag
 * @param {Record<string, any>} [props] properties; `on` holds listeners, `data` data attributes, names with a
 *   dash are attributes
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") {
      for (const [kind, heard] of Object.entries(value)) made.addEventListener(kind, heard);
    } else if (name === "data") {
      Object.assign(made.dataset, value);
    } else if (name.includes("-")) {
      made.setAttribute(name, value);
    } else {
      made[name] = value;
    }
  }
  made.append(...children);
  return made;
}

/** Say something to who hears the page. @param {string} text */
export function say(text) {
  at("status").textContent = text;
}
