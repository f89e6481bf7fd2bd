"""Keeps one worker of every served ETL running beside a target, in a process of its own."""
