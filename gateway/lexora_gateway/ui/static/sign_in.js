// Signing in with a key, and out: a cookie that this script cannot read stands for the key.

import { byId } from "./dom.js";

// What changes something is from this page: other pages cannot send this header.
export const OWN = { "x-lexora-ui": "1" };

let done = () => {};

export const asked = () => !byId("sign-in").hidden;

export function onSignedIn(then) { done = then; }

export function askToSignIn() {
  byId("sign-in").hidden = false;
  showCaller(null);
  byId("key").focus();
}

export function signedIn() {
  byId("sign-in").hidden = true;
  complain("");
}

export function showCaller(caller) {
  const name = caller?.name ?? "";
  byId("caller").textContent = name && (caller.tenant ? `${name} of ${caller.tenant}` : name);
  byId("sign-out").hidden = !caller?.session;
}

function complain(text) {
  byId("sign-in-trouble").textContent = text;
  byId("sign-in-trouble").hidden = !text;
}

async function post(path, body) {
  const options = { method: "POST", headers: { ...OWN, "content-type": "application/json" }, signal: AbortSignal.timeout(8000) };
  const response = await fetch(path, body ? { ...options, body: JSON.stringify(body) } : options);
  if (!response.ok) throw new Error((await response.json()).error.message);
}

byId("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = byId("key").value;
  byId("key").value = "";
  try {
    await post("sign-in", { key });
    complain("");
  } catch (error) {
    complain(error.message);
    byId("key").focus();
    return;
  }
  done();
});

byId("sign-out").addEventListener("click", async () => {
  try {
    await post("sign-out");
  } finally {
    done();
  }
});
