"""Training: the one loop behind fine-tuning and behind the recovery training of compression.

training_loop, training_run                  epochs, best weights, resume after a kill
training_plan, learning_rate_schedule        what is learnt from, which layers, how fast
augmentation, class_balance, optimizers      what a step is made of
inference, training_checkpoint               logits of a split; the state on disk
"""
