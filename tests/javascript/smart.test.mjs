import assert from "node:assert/strict";
import test from "node:test";

import { boundsOf, smartTool } from "../../ui/static/smart.js";

test("the bounds of a mask hold its pixels and no more", () => {
  const mask = new Uint8Array(6 * 4);
  assert.equal(boundsOf(mask, 6), null);
  mask[1 * 6 + 2] = mask[3 * 6 + 4] = 1;
  assert.deepEqual(boundsOf(mask, 6), [2, 1, 4, 3]);
});

test("a short press is a click, a long way is a box, and taking away is always a click", () => {
  const said = [];
  const smart = {
    click: (point, isOn) => said.push(["click", isOn]),
    drag: () => said.push(["box"]),
    leave() {},
    takesAway: false,
  };
  const press = (to, event) => {
    const canvas = { smart, zoom: 2 };
    smartTool.down(canvas, [10, 10], event);
    smartTool.move(canvas, to);
    smartTool.up(canvas, canvas.stroke);
  };
  press([11, 11], { button: 0 });
  press([20, 18], { button: 0 });
  press([20, 18], { button: 2 });
  press([10, 10], { button: 0, shiftKey: true });
  press([10, 10], { button: 0, altKey: true });
  smart.takesAway = true;
  press([10, 10], { button: 0 });
  assert.deepEqual(said, [["click", true], ["box"], ["click", false], ["click", false], ["click", false], ["click", false]]);
});
