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
    "imdb": 2,
    "sst2": 2,
    "agnews": 4,
    "iris": 3,
    "wine": 3,
    "breastcancer": 2,
    "diabetes": 2,
}
# In the package, with their places in its data.
PACKAGED = {
    "digits": "digits",
    "iris": "tables/iris.csv",
    "wine": "tables/wine.csv",
    "breastcancer": "tables/breastcancer.csv",
    "diabetes": "tables/diabetes.csv",
}
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
# Texts, with the folder's name.
TEXTS = {"imdb": "IMDB", "sst2": "SST2", "agnews": "AG_NEWS"}
# All that can be downloaded, with the folder that it goes to.
DOWNLOADED = {**TORCHVISION, **TEXTS}
