"""What is shown of a command line to others."""

from hf_winopt.public import ROOT, public_command, public_text


def test_public_command(tmp_path):
    secret = [
        "--wandb_api_key=hf_abc",
        "--hub_token",
        "hf_abc",
        f"--dataset_name={tmp_path}/glue",
        "--hub-token=hf_abc",
        "--optim_args",
        "a=1",
    ]
    assert public_command(["python", "run.py"], secret) == "python run.py --dataset_name=PATH_TO/glue --optim_args a=1"
    inside = [str(ROOT / "recipes" / "x.yaml"), "../../glue"]
    assert public_command(["python", "run.py"], inside) == "python run.py recipes/x.yaml PATH_TO/glue"


def test_public_text():
    text = f"No such file: '/home/ann/data/x.csv' (https://a.b/c/d, and/or, {ROOT}/tests/x.py)"
    assert public_command(
        (), ["--a=/home/ann/lr=3/x", '--kw={"p": "/home/ann/x", "q": "a=b"}', "file:///home/ann/x"]
    ) == ("""--a=PATH_TO/x '--kw={"p": "PATH_TO/x", "q": "a=b"}' file://PATH_TO/x""")
    assert public_command((), ["--data", "json:/home/ann/x.json", "--label_key", "y"]) == (
        "--data json:PATH_TO/x.json --label_key y"
    )
    assert public_text(text) == "No such file: 'PATH_TO/x.csv' (https://a.b/c/d, and/or, tests/x.py)"
