"""For operators: prove that nothing is missing, deliver again, look at a deployment, plan its capacity."""
