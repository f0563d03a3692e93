"""What a plan counts is what the code does, and its prices are a list that can be replaced."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aggregator.commands.main import app
from aggregator.commands.plan import lines
from aggregator.operations.capacity import arrivals, costs
from aggregator.operations.capacity.costs import FIGURES, PRICES, PlanError, Workload, duration, plan, priced
from aggregator.operations.capacity.provisioning import CAPACITIES, TARGET, Demand, Provisioned, provisioned
from aggregator.operations.doctor.template import read
from aggregator.pipeline import claiming, sources
from aggregator.pipeline.settings import Settings
from aggregator.pipeline.swaps import Statements
from aggregator.runtimes.gathering import MOST_PAYLOAD
from tests.support.stack import PATH

FULL = Workload(50e6, 4_096)


def test_the_constants_are_those_of_the_code() -> None:
    fields = Settings.model_fields

    assert arrivals.PAYLOAD == MOST_PAYLOAD
    assert (sources.PART_SIZE, Statements.most, claiming.CLAIMERS) == (costs._PART, costs._CLAIMS, costs._CLAIMERS)
    assert fields["read_concurrency"].default == costs._READERS
    assert FULL.bundle_limit == fields["max_bundle_input_mb"].default * 1e6


def test_of_a_million_objects_every_request_is_counted() -> None:
    made = plan(FULL)

    counted = {line.what: line.amount for line in made.lines}
    batches = 1e6 / made.members
    assert counted == {
        "Lambda invocations": pytest.approx(batches),
        "Lambda time": pytest.approx(batches * made.seconds * 1_769 / 1_024),
        "S3 GET of members": 1e6,
        "S3 PUT of bundles": pytest.approx(batches),
        "SQS sent by S3": 1e6,
        "SQS receives": pytest.approx(made.seen.receives / made.seen.handled * 1e6),
        "SQS deletes": pytest.approx(1e5, rel=0.01),
        "DynamoDB claims": 1e6,
        "DynamoDB settle records": pytest.approx(batches),
        "DynamoDB reads": 0,
        "CloudWatch logs": pytest.approx(batches * FIGURES.log_bytes / 1e9),
    }
    assert made.dollars == pytest.approx(sum(line.dollars for line in made.lines))


def test_a_batch_that_holds_more_than_a_bundle_may_makes_several() -> None:
    made = plan(Workload(50e6, 1e6))

    assert made.members == pytest.approx(100, rel=0.03)
    assert made.bound == {"bundle limit": 1.0}
    puts = next(line.amount for line in made.lines if line.what == "S3 PUT of bundles")
    assert puts == pytest.approx(1e6 / made.members)


def test_what_comes_again_is_claimed_in_vain_and_looked_up_but_neither_read_nor_bundled() -> None:
    fresh, again = plan(FULL), plan(FULL._replace(duplicates=0.5))

    amounts = {line.what: line.amount for line in again.lines}
    assert amounts["DynamoDB claims"] == 1e6
    assert amounts["DynamoDB reads"] == 1e6
    assert amounts["S3 GET of members"] == 0.5e6
    assert again.members == pytest.approx(fresh.members / 2, rel=0.01)
    assert again.seconds < fresh.seconds


def test_large_objects_are_read_in_parts_and_each_part_is_a_request() -> None:
    made = plan(Workload(1e4, 20 * 1024 * 1024))

    assert next(line.amount for line in made.lines if line.what == "S3 GET of members") == 3e6


def test_replication_puts_every_bundle_twice() -> None:
    once, twice = plan(FULL), plan(FULL._replace(replicated=True))

    puts = [next(line.amount for line in made.lines if "PUT" in line.what) for made in (once, twice)]
    assert puts[1] == 2 * puts[0]


def test_an_invocation_takes_as_long_as_the_longest_of_work_waiting_and_reading() -> None:
    figures = FIGURES._replace(object_cpu=1e-3, invocation=0.0, compression=1e12, latency=0.0, network=1e6)

    assert duration(1_000, Workload(1e6, 10), figures) == pytest.approx(1.0)
    assert duration(1_000, Workload(1e6, 5_000), figures) == pytest.approx(5.0)
    assert duration(12_800, Workload(1e6, 10), figures._replace(object_cpu=0, latency=0.1)) == pytest.approx(10.3)


def test_half_the_memory_is_half_the_cpu_and_more_than_one_cpu_helps_compression_alone() -> None:
    work = FIGURES._replace(latency=0, network=1e12, invocation=0.0)
    size, whole = 4 * 1024 * 1024, Workload(1e6, 4 * 1024 * 1024, memory=1_769)
    packing, telling = 100 * size / work.compression, 100 * work.object_cpu

    assert duration(100, whole, work) == pytest.approx(packing + telling)
    assert duration(100, whole._replace(memory=3_538), work) == pytest.approx(packing / 2 + telling)
    assert duration(100, whole._replace(memory=1_769 // 2), work) == pytest.approx(2 * (packing + telling), rel=0.01)


def test_a_limit_is_exceeded_where_the_peak_is_above_it() -> None:
    even, bursts = plan(FULL), plan(FULL._replace(burst=12))

    assert [limit.what for limit in even.limits if limit.exceeded] == []
    assert [limit.what for limit in bursts.limits if limit.exceeded] == [
        "S3 GETs a second under one prefix",
        "S3 PUTs of producers a second under one prefix",
        "DynamoDB write units a second, new table",
    ]


def test_a_function_that_cannot_keep_up_is_said_so() -> None:
    made = plan(FULL._replace(concurrency=2, batch_size=100, memory=128))

    assert not made.keeps_up
    assert any(line.startswith("keeps up    no: ") for line in lines(made))


def test_what_may_be_provisioned_is_what_the_template_offers() -> None:
    template = read(PATH)
    bounds = template["Mappings"]["Capacity"]
    offered = {int(most): found["Least"] for most, found in bounds.items() if most != "on-demand"}
    policies = [each["Properties"] for name, each in template["Resources"].items() if name.endswith("sPolicy")]
    targets = [each.get("TargetTrackingScalingPolicyConfiguration", {}).get("TargetValue") for each in policies]

    assert offered == CAPACITIES
    assert [target for target in targets if target] == [100 * TARGET] * 2


def test_steady_traffic_pays_less_by_the_hour_and_bursts_pay_more() -> None:
    steady, bursts = plan(FULL), plan(FULL._replace(burst=12))

    assert steady.provisioned is not None
    assert bursts.provisioned is not None
    assert steady.provisioned.dollars < 0.5 * steady.ledger_dollars
    assert bursts.provisioned.dollars > 4 * bursts.ledger_dollars


def test_as_much_is_provisioned_as_holds_the_peak_at_the_target_and_no_less_than_the_parameter_allows() -> None:
    demand = Demand(write_units=1, read_units=0.2, rate=700, peak=2_100)

    both = provisioned(demand, write_price=3.6, read_price=0.36)
    no_reads = provisioned(demand._replace(read_units=0), write_price=3.6, read_price=0.36)

    assert both == pytest.approx(Provisioned(4_000, 3_000, 600, (3_000 * 0.001 + 600 * 0.0001) / 700 * 1e6))
    assert no_reads == pytest.approx(Provisioned(4_000, 3_000, 200, (3_000 * 0.001 + 200 * 0.0001) / 700 * 1e6))


def test_more_than_a_table_may_have_is_not_provisioned() -> None:
    beyond = plan(Workload(10e9, 4_096))

    assert beyond.provisioned is None
    assert "provisioned: more than the quota of a table" in lines(beyond)


def test_every_price_names_its_page() -> None:
    assert all(price > 0 and page.split(":")[0].endswith("pricing") for price, page in PRICES.values())


def test_other_prices_replace_ours_and_only_those_that_are_named(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"s3_get": 1e-6}))

    made = plan(FULL, prices=priced(path))

    dollars = {line.what: line.dollars for line in made.lines}
    assert dollars["S3 GET of members"] == pytest.approx(1.0)
    assert dollars["DynamoDB claims"] == pytest.approx(0.625)


@pytest.mark.parametrize("text", ["", "[]", '{"s3_get": "cheap"}', '{"s3_got": 1}'])
def test_a_price_list_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(text)

    with pytest.raises(PlanError):
        priced(path)


@pytest.mark.parametrize(
    "wrong",
    [Workload(0, 1), Workload(1, -1), Workload(1e6, 200e6), Workload(0.0001, 1), Workload(1e6, 1, duplicates=1.0)],
)
def test_what_is_no_workload_is_refused(wrong: Workload) -> None:
    with pytest.raises(PlanError):
        plan(wrong)


def test_the_command_prints_the_plan_and_says_by_its_status_that_nothing_must_be_raised() -> None:
    ran = CliRunner().invoke(app, ["plan", "--objects-per-day", "50M", "--object-size", "4KiB"])

    assert (ran.exit_code, ran.stdout.splitlines()) == (0, lines(plan(FULL)))


def test_the_command_prints_everything_as_json() -> None:
    ran = CliRunner().invoke(app, ["plan", "--objects-per-day", "5000M", "--object-size", "4KiB", "--json"])

    told = json.loads(ran.stdout)
    assert ran.exit_code == 1
    assert told["workload"]["objects_per_day"] == 5e9
    assert told["keeps_up"] is False
    assert told["dollars_per_million_objects"] == pytest.approx(
        sum(line["dollars"] for line in told["per_million_objects"])
    )
    assert told["ledger"] == {"on_demand": pytest.approx(0.625, rel=0.01), "provisioned": None}


@pytest.mark.parametrize("text", ["many", "50X", "-1", "1,00", "10,0000", "1,5M", "1e"])
def test_a_number_that_is_none_is_one_clear_line(text: str) -> None:
    ran = CliRunner().invoke(app, ["plan", "--objects-per-day", text, "--object-size", "4KiB"])

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"aggregator: --objects-per-day {text!r} is not a number such as 50M, 5e7, 50,000,000")


@pytest.mark.parametrize("text", ["1e6", "1,000,000", "1_000_000", "1000k", "1.0M", "1M"])
def test_a_million_may_be_written_in_any_usual_way(text: str) -> None:
    ran = CliRunner().invoke(app, ["plan", "--objects-per-day", text, "--object-size", "4KiB", "--json"])

    assert json.loads(ran.stdout)["workload"]["objects_per_day"] == 1_000_000


def test_few_objects_are_told_in_the_singular_and_by_the_hour_and_the_month_has_a_price() -> None:
    ran = CliRunner().invoke(app, ["plan", "--objects-per-day", "200", "--object-size", "4KiB"])

    lines = [" ".join(line.split()) for line in ran.stdout.splitlines()]
    assert lines[0] == "objects 8.3 per hour"
    assert lines[1].startswith("bundle 1 member, ")
    assert "1 message in eight of ten batches" in lines
    assert any(line.startswith("total per month (30 days) ") for line in lines)
