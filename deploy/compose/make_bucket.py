"""Make the bucket of `RLHF_BUCKET`, unless it is there. Keys and endpoint come from the environment."""

import os

import boto3


def main() -> None:
    client, name = boto3.client("s3"), os.environ["RLHF_BUCKET"]
    if name not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=name)


if __name__ == "__main__":
    main()
