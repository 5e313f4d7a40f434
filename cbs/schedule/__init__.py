"""What goes on around a pruning: training and fine-tuning, stages, and starting from scratch."""
