"""What a run is judged by: functions of NumPy arrays, which know neither Flower, Ray nor PyTorch.

How well a model does:

- `accuracy`: the share of test samples predicted right, of counts by client and label;
- `divergence`: how far two models' outputs are apart (Jensen-Shannon);
- `backdoor`: how often a trigger still works.

Whether a forgetting shows:

- `membership`: shadow-model attacks on what outputs tell of who was in the training data;
- `cohorts`: which samples are forgotten, retained, held out;
- `forgetting`: all of these for one run, beside its retraining;
- `outputs`: what they are computed from, and its file.

What a server can tell of masked labels (SplitWiper+):

- `label_matching`: all attacks, and how they are scored;
- `observed`: what the server received, which all attacks start from;
- `clusterings`, `client_view`, `linkage`, `lookalikes`: one kind of attack each.
"""
