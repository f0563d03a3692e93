// The stack as part of a CDK app: the transformed template is included as it is, and only parameters are given.
//
//     TEMPLATE=template.json SOURCE_BUCKET_NAME=my-objects npx cdk deploy --app "node app.mjs"

import { App, Stack } from "aws-cdk-lib";
import { CfnInclude } from "aws-cdk-lib/cloudformation-include";

const app = new App({ outdir: process.env.OUT ?? "cdk.out" });
const stack = new Stack(app, process.env.STACK ?? "data-aggregator");
const included = new CfnInclude(stack, "Template", {
  templateFile: process.env.TEMPLATE,
  parameters: { SourceBucketName: process.env.SOURCE_BUCKET_NAME },
});

// What is included can be referred to, for example by a consumer of bundles:
export const bundles = included.getResource("Distribution");

app.synth();
