"""Where accuracy goes: preprocessing, weights, activations, code; layer by layer and tensor by tensor."""
