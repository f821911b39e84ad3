"""The datasets that are known by name: how many classes, and how they come to this machine."""

from __future__ import annotations

# Class counts. Data under other names is known by what its files hold.
CLASSES = {
    "mnist": 10,
    "fashionmnist": 10,
    "kmnist": 10,
    "emnist": 47,  # its split "balanced"
    "cifar10": 10,
    "cifar100": 100,
    "svhn": 10,
    "digits": 10,
}
# In the package, each in a folder of its name.
PACKAGED = {"digits"}
# torchvision's class for a name; it is also the name of its folder.
TORCHVISION = {
    "mnist": "MNIST",
    "fashionmnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "emnist": "EMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
}
# All that can be downloaded, with the folder that it goes to.
DOWNLOADED = {**TORCHVISION}
