"""Scores of anomaly from states, from reconstruction and from the bare series, judged alike.

Everything is fitted on the same normal steps, smoothed alike, and gets its threshold from the same
held-out normal steps. No score looks ahead. Nothing was chosen by looking at the labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from seq2seq import Seq2Seq, windows

import everystate as es
from everystate.analysis.anomaly import Detector, fit_detector
from everystate.analysis.evaluation import evaluate_alarms, evaluate_score
from everystate.analysis.simple_scores import moving_z_score, past_windows, smooth, step_size
from everystate.analysis.thresholds import Threshold, threshold

RATE = 0.01
"""Share of normal steps that may be in alarm."""
LAST = es.Select(variables="states", window=(-1, None))


@dataclass(eq=False)
class Scorer:
    """Scores of a series: high where something is unusual.

    Parameters
    ----------
    model : Seq2Seq
        The trained network.
    window : int
        Steps of the windows it was trained on.
    normal : ndarray, shape (time, channels)
        A normal series.
    fit : slice
        The steps of it that detectors are fitted on.
    stride : int
        Steps from one window to the next; a score of windows is held in between.
    """

    model: Seq2Seq
    window: int
    normal: np.ndarray
    fit: slice
    stride: int = 1
    detectors: dict[str, Detector] = field(init=False)

    def __post_init__(self) -> None:
        """Fit the detectors."""
        # The first windows are filled up with the first step, and not like the others.
        part = slice(self.window, self.fit.stop)
        ends, after_each, one_pass, raw = self._seen(self.normal)
        inside = after_each.isel(time=(ends >= part.start) & (ends < part.stop))
        there = one_pass.isel(time=part)
        self.detectors = {
            "h and c after each window, Mahalanobis": fit_detector(inside),
            "h and c after each window, nearest": fit_detector(inside, "nearest"),
            "h of one long pass, nearest": fit_detector(there, "nearest", "h"),
            "c of one long pass, nearest": fit_detector(there, "nearest", "c"),
            "gates of one long pass, nearest": fit_detector(there, "nearest", "gates"),
            "raw windows, Mahalanobis (no network)": fit_detector(raw.isel(time=part)),
            "raw windows, nearest (no network)": fit_detector(raw.isel(time=part), "nearest"),
            "raw windows, PCA residual (no network)": fit_detector(raw.isel(time=part), "residual"),
        }

    def __call__(self, x: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Return the scores of a series, each of shape (time,) and smoothed over `length` steps."""
        ends, after_each, one_pass, raw = self._seen(x)
        scores = {}
        for name, detector in self.detectors.items():
            seen = after_each if "after" in name else one_pass if "pass" in name else raw
            values = detector.score(seen).score.values
            scores[name] = self._held(values, ends, len(x)) if "after" in name else values
        scores["reconstruction error"] = self._held(self._errors(x), ends, len(x))
        x = x.astype(np.float64)
        scores["moving z-score (no network)"] = moving_z_score(x, self.window)
        scores["size of the last step (no network)"] = step_size(x)
        return {name: smooth(values, length) for name, values in scores.items()}

    def _seen(self, x: np.ndarray) -> tuple[np.ndarray, xr.Dataset, xr.Dataset, xr.Dataset]:
        """Return where windows end, states after each, states of one pass, and raw windows."""
        cut = windows(x, self.window, self.stride)
        ends = np.arange(len(cut)) * self.stride + self.window - 1
        with torch.no_grad():
            code = es.record(self.model.encoder, cut, select=LAST)["lstm"].to_dataset()
            long = es.record(self.model.encoder, torch.from_numpy(x)[None])["lstm"].to_dataset()
        after_each = code.isel(time=0, drop=True).rename(batch="time").assign_coords(time=ends)
        past = past_windows(x, self.window).reshape(len(x), -1)
        raw = xr.Dataset({"raw": (("time", "unit"), past)})
        return ends, after_each, long.isel(batch=0, drop=True), raw

    @torch.no_grad()
    def _errors(self, x: np.ndarray) -> np.ndarray:
        cut = windows(x, self.window, self.stride)
        return ((self.model(cut) - cut) ** 2).mean((1, 2)).double().numpy()

    @staticmethod
    def _held(values: np.ndarray, ends: np.ndarray, size: int) -> np.ndarray:
        """Return the score of the last window that has ended; before the first one, its score."""
        latest = np.searchsorted(ends, np.arange(size), side="right") - 1
        return values[latest.clip(0)]


@dataclass(frozen=True, eq=False)
class Case:
    """Series to be judged on.

    Parameters
    ----------
    normal : mapping of str to ndarray, shape (time,)
        Scores of a normal series, by name.
    held_out : slice
        The steps of it that thresholds come from.
    scores : list of mappings of str to ndarray, shape (time,)
        Scores of each series with events.
    labels : ndarray of bool, shape (series, time)
        Where the events are.
    test : slice
        The steps that count.
    memory : int
        Steps after an event that a window still holds it.
    """

    normal: Mapping[str, np.ndarray]
    held_out: slice
    scores: list[Mapping[str, np.ndarray]]
    labels: np.ndarray
    test: slice
    memory: int

    def threshold(self, name: str) -> Threshold:
        """Return the threshold of a score."""
        return threshold(xr.DataArray(self.normal[name][self.held_out], dims="time"), RATE)

    def row(self, name: str) -> dict[str, float]:
        """Return how a score does."""
        found = self.threshold(name)
        values = np.stack([scores[name][self.test] for scores in self.scores])
        score = xr.DataArray(values, dims=("batch", "time"))
        labels = self.labels[:, self.test]
        curve = evaluate_score(score, held_by_memory(labels, self.memory), shifts=200)
        alarms = evaluate_alarms(score > found.value, labels, tolerance=self.memory)
        return {
            "AP": curve.average_precision.item(),
            "p": curve.p_value.item(),
            "found": int(alarms.found.sum()),
            "delay": float(alarms.delay.median()),
            "false": alarms.false_alarm_rate.item(),
            "affiliation": alarms.affiliation_precision.item(),
            "samples": found.effective_samples,
        }

    def table(self) -> str:
        """Return how all scores do, as text."""
        labels = self.labels[:, self.test]
        chance = held_by_memory(labels, self.memory).mean()
        events = int((np.diff(labels, axis=1, prepend=False).astype(int) & labels).sum())
        lines = [
            f"{events} events; chance: average precision {chance:.2f}, affiliation about 0.5; "
            f"false alarms allowed: {RATE:.0%} of the steps",
            f"{'score':<42}{'avg.prec.':>10}{'p':>7}{'found':>7}{'delay':>7}{'false':>8}"
            f"{'affil.':>8}{'n_eff':>7}",
        ]
        for name in self.normal:
            r = self.row(name)
            lines.append(
                f"{name:<42}{r['AP']:>10.2f}{r['p']:>7.3f}{r['found']:>7}{r['delay']:>7.0f}"
                f"{r['false']:>8.1%}{r['affiliation']:>8.2f}{r['samples']:>7.0f}"
            )
        return "\n".join(lines)


def held_by_memory(labels: np.ndarray, memory: int) -> np.ndarray:
    """Return which steps are labelled, or so soon after that a window still holds what was."""
    held = labels.copy()
    for row in held:
        for step in np.flatnonzero(row.copy()):
            row[step : step + memory] = True
    return held
