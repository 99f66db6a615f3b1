"""A recorded LSTM autoencoder on a real series, from committed weights, without a framework."""
