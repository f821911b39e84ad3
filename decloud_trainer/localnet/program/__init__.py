"""The on-chain program of the local network: C source, linker step, compiled images."""
