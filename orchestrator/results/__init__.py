"""Results: records compacted to Parquet, and loading them.

`compact` is light to import and loads Dask, pandas and pyarrow only when called; the others load pandas.
"""
