"""Recommenders from a list of interactions: retrieval by factors, then a ranking network; trained here, served as ONNX.

    csv_tables -> dataset -> split        what somebody has, checked; the last choice of each user held out
    factors -> tower -> pairs             vectors of items; of a user, from a history; features of a user and an item
    sampling -> network -> training       what the ranking network learns from, and how
    metrics -> report                     recall@10 and NDCG@10 over the whole catalogue
    graphs -> folders                     the same computations as two ONNX files, and the folders that serve them

Everything is float64 with fixed seeds, and what one stage hands to the next is rounded to float32: that makes the
metrics the same on every machine, and what was measured the same as what is served.
"""
