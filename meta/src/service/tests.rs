mod grace;
mod limits;
mod model;
mod recalls;
mod rig;
mod sessions;
mod stress;
mod trash;
