"""Frontends: ways into a graph. One folder per source language."""
