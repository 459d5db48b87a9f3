"""Deploy and operate a highly available entrance to a Kubernetes control plane."""

__version__ = "0.1.0"
