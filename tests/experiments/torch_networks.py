"""ResNet-18 and VGG in PyTorch, with the names of torchvision, which is not installed."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        if (inputs, stride) != (outputs, 1):
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x):
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        x = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(x + shortcut)


class ResNet(nn.Module):
    def __init__(self, said, classes):
        super().__init__()
        width, stem = said["width"], said["stem"]
        given = (stem["kernel"], stem["stride"], stem["padding"])
        self.conv1 = nn.Conv2d(3, width, *given, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem["maxpool"] else nn.Identity()
        inputs = width
        for number in range(1, 5):
            outputs = width * 2 ** (number - 1)
            first = Block(inputs, outputs, 1 if number == 1 else 2)
            setattr(self, f"layer{number}", nn.Sequential(first, Block(outputs, outputs, 1)))
            inputs = outputs
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class VGG(nn.Module):
    def __init__(self, said, size, hidden, classes):
        super().__init__()
        assert said["batch_norm"]
        modules, inputs = [], 3
        for channels in said["cfg"]:
            if channels == "M":
                modules.append(nn.MaxPool2d(2, 2))
                size //= 2
                continue
            modules += [nn.Conv2d(inputs, channels, 3, padding=1), nn.BatchNorm2d(channels)]
            modules.append(nn.ReLU())
            inputs = channels
        self.features = nn.Sequential(*modules)
        dense, inputs = [], inputs * size * size
        for width in hidden:
            dense += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout()]
            inputs = width
        self.classifier = nn.Sequential(*dense, nn.Linear(inputs, classes))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def torch_network(said, size, classes, hidden=()):
    """What `architecture` says, for images of a size."""
    if said["model"] == "resnet18":
        return ResNet(said, classes).eval()
    return VGG(said, size, hidden, classes).eval()
