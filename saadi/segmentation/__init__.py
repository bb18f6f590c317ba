"""Clicks and boxes to masks: Segment Anything where the user has its weights, else OpenCV's GrabCut, which says why."""
