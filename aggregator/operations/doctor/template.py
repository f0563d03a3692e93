"""
What a CloudFormation template says once its parameters are given: conditions decided, references followed.

It knows as much of the language as `deploy/template.yaml` speaks. What a resource is called by AWS, nobody knows before
it is there: names here are made from the stack's name and the logical id. Pure: no AWS.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from aggregator.exceptions import AggregatorError

_ACCOUNT, _REGION = "123456789012", "us-east-1"

_ARNS = {
    "AWS::S3::Bucket": "arn:aws:s3:::{name}",
    "AWS::SQS::Queue": f"arn:aws:sqs:{_REGION}:{_ACCOUNT}:{{name}}",
    "AWS::DynamoDB::Table": f"arn:aws:dynamodb:{_REGION}:{_ACCOUNT}:table/{{name}}",
    "AWS::IAM::Role": f"arn:aws:iam::{_ACCOUNT}:role/{{name}}",
    "AWS::Logs::LogGroup": f"arn:aws:logs:{_REGION}:{_ACCOUNT}:log-group:{{name}}:*",
    "AWS::CloudWatch::Alarm": f"arn:aws:cloudwatch:{_REGION}:{_ACCOUNT}:alarm:{{name}}",
}
_NAMES = {"AWS::S3::Bucket": "BucketName", "AWS::CloudWatch::Alarm": "AlarmName"}

_NO_VALUE = object()
_REFERENCE = re.compile(r"\$\{(!?)([^}]+)\}")


class TemplateError(AggregatorError):
    """The template cannot be read, or refuses its parameters."""

    reason = "template"


class Resource(NamedTuple):
    """A resource that the stack will have, with every reference followed."""

    type: str
    properties: dict[str, Any]


def read(path: Path) -> dict[str, Any]:
    """
    The document in a template's file, YAML or JSON, with `!Ref` and its like in their long forms.

    Raises:
        TemplateError: it is not a template.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except RecursionError:
        raise TemplateError(f"{path} is not a template: it is nested too deeply") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TemplateError(f"{path} is not YAML: " + " ".join(str(error).split())) from error
    if not isinstance(document, dict) or not isinstance(document.get("Resources"), dict):
        raise TemplateError(f"{path} is not a template: it has no Resources")
    for section, needed in (("Resources", "Type"), ("Parameters", "Type"), ("Outputs", "Value")):
        for name, declared in _entries(document, section):
            if not isinstance(declared, dict) or needed not in declared:
                raise TemplateError(f"{path} is not a template: {name} of its {section} has no {needed}")
    return document


def _entries(document: Mapping[str, Any], section: str) -> Iterable[tuple[Any, Any]]:
    found = document.get(section, {})
    return found.items() if isinstance(found, dict) else [("everything", None)]


class Template:
    """A template with its parameters given; those that are not have their defaults."""

    def __init__(self, document: Mapping[str, Any], parameters: Mapping[str, str], *, stack: str = "stack") -> None:
        """
        Take the parameters as CloudFormation would.

        Raises:
            TemplateError: a parameter is missing, unknown, or not allowed.
        """
        self._document = document
        self.parameters = _accepted(document.get("Parameters", {}), parameters)
        self._pseudo = {
            "AWS::StackName": stack,
            "AWS::AccountId": _ACCOUNT,
            "AWS::Region": _REGION,
            "AWS::Partition": "aws",
            "AWS::NoValue": _NO_VALUE,
        }
        self._functions: dict[str, Callable[[Any], Any]] = {
            "Ref": self._ref,
            "Condition": self.holds,
            "Fn::GetAtt": self._attribute,
            "Fn::Sub": self._sub,
            "Fn::If": lambda of: self.resolved(of[1] if self.holds(of[0]) else of[2]),
            "Fn::Join": lambda of: str(of[0]).join(map(str, self.resolved(of[1]))),
            "Fn::Split": lambda of: self.resolved(of[1]).split(of[0]),
            "Fn::FindInMap": lambda of: self._found(*map(self.resolved, of)),
            "Fn::Equals": lambda of: str(self.resolved(of[0])) == str(self.resolved(of[1])),
            "Fn::Not": lambda of: not self.resolved(of[0]),
            "Fn::And": lambda of: all(map(self.resolved, of)),
            "Fn::Or": lambda of: any(map(self.resolved, of)),
        }

    @property
    def resources(self) -> dict[str, Resource]:
        """The resources whose conditions hold, by logical id."""
        return {
            name: Resource(resource["Type"], self.resolved(resource.get("Properties", {})))
            for name, resource in self._document["Resources"].items()
            if "Condition" not in resource or self.holds(resource["Condition"])
        }

    @property
    def outputs(self) -> dict[str, Any]:
        """The values of the outputs whose conditions hold."""
        return {
            name: self.resolved(output["Value"])
            for name, output in self._document.get("Outputs", {}).items()
            if "Condition" not in output or self.holds(output["Condition"])
        }

    def holds(self, condition: str) -> bool:
        """Whether a condition of the template holds."""
        return bool(self.resolved(self._document["Conditions"][condition]))

    def resolved(self, value: Any) -> Any:
        """
        A value of the template with every function in it called.

        Raises:
            TemplateError: something is referred to that the template does not have.
        """
        if isinstance(value, list):
            return [item for item in map(self.resolved, value) if item is not _NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((name, argument),) = value.items()
            if name in self._functions and not (name == "Condition" and not isinstance(argument, str)):
                return self._functions[name](argument)
        resolved = {name: self.resolved(item) for name, item in value.items()}
        return {name: item for name, item in resolved.items() if item is not _NO_VALUE}

    def _ref(self, name: str) -> Any:
        if name in self._pseudo:
            return self._pseudo[name]
        if name in self.parameters:
            return self.parameters[name]
        if self._resource(name)["Type"] == "AWS::SQS::Queue":
            return f"https://sqs.{_REGION}.amazonaws.com/{_ACCOUNT}/{self._name(name)}"
        return self._name(name)

    def _attribute(self, of: list[str]) -> str:
        resource, attribute = of
        if attribute == "QueueName":
            return self._name(resource)
        return _ARNS[self._resource(resource)["Type"]].format(name=self._name(resource))

    def _sub(self, of: Any) -> str:
        text, values = of if isinstance(of, list) else (of, {})

        def value(match: re.Match[str]) -> str:
            literal, name = match.groups()
            if literal:
                return f"${{{name}}}"
            if name in values:
                return str(self.resolved(values[name]))
            return str(self._attribute(name.split(".")) if "." in name else self._ref(name))

        return _REFERENCE.sub(value, text)

    def _found(self, mapping: str, first: Any, second: Any) -> Any:
        try:
            return self._document["Mappings"][mapping][str(first)][str(second)]
        except KeyError as missing:
            raise TemplateError(f"the mapping {mapping} has no {missing}") from None

    def _name(self, logical: str) -> str:
        """What the resource will be called: as the template says, or as AWS may."""
        resource = self._resource(logical)
        given = resource.get("Properties", {}).get(_NAMES.get(resource["Type"], ""))
        return str(self.resolved(given)) if given else f"{self._pseudo['AWS::StackName']}-{logical}".lower()

    def _resource(self, logical: str) -> dict[str, Any]:
        try:
            return self._document["Resources"][logical]  # type: ignore[no-any-return]
        except KeyError:
            if logical in self._made_by_sam():
                return {"Type": "AWS::Lambda::EventSourceMapping"}
            raise TemplateError(f"the template refers to {logical}, which it does not have") from None

    def _made_by_sam(self) -> set[str]:
        """What the transform makes of the events of functions, which the template may refer to."""
        return {
            name + event
            for name, resource in self._document["Resources"].items()
            if resource["Type"] == "AWS::Serverless::Function"
            for event in resource["Properties"].get("Events", {})
        }


def _accepted(declared: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise TemplateError("the template has no parameter " + ", ".join(unknown))
    accepted, faults = dict[str, Any](), list[str]()
    for name, declaration in declared.items():
        value = str(given.get(name, declaration.get("Default", "")))
        if name not in given and "Default" not in declaration:
            faults.append(f"{name} is not given: add --parameter {name}=VALUE")
        elif not _allowed(declaration, value):
            faults.append(f"{name} is {value!r}: {_constraint(declaration)}")
        else:
            accepted[name] = int(value) if declaration["Type"] == "Number" else value
    if faults:
        raise TemplateError("the parameters are not accepted: " + "; ".join(faults))
    return accepted


def _allowed(declaration: Mapping[str, Any], value: str) -> bool:
    if "AllowedValues" in declaration and value not in map(str, declaration["AllowedValues"]):
        return False
    if declaration["Type"] == "Number":
        low, high = declaration.get("MinValue", value), declaration.get("MaxValue", value)
        return value.isdecimal() and int(low) <= int(value) <= int(high)
    return re.fullmatch(declaration.get("AllowedPattern", "(?s:.*)"), value) is not None


def _constraint(declaration: Mapping[str, Any]) -> str:
    if "ConstraintDescription" in declaration:
        return str(declaration["ConstraintDescription"])
    facts = {name: declaration[name] for name in ("AllowedValues", "MinValue", "MaxValue") if name in declaration}
    return ", ".join(f"{name} {value}" for name, value in facts.items()) or "is not such a value"


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms; nothing that is repeated repeats."""

    _anchors = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """
        The next node.

        Raises:
            ComposerError: it is an alias in a node that has a name itself.
        """
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            if self._anchors:
                mark: Any = event.start_mark
                raise yaml.composer.ComposerError(problem="an alias within an anchor", problem_mark=mark)
            return super().compose_node(parent, index)
        self._anchors += event.anchor is not None
        try:
            return super().compose_node(parent, index)
        finally:
            self._anchors -= event.anchor is not None


def _short_form(loader: _Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    if tag == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {tag if tag in {"Ref", "Condition"} else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _short_form)
