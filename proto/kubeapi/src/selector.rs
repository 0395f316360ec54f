#![allow(missing_docs)]
use std::collections::BTreeMap; use serde_json::Value; use crate::{error::ApiError, object::Object, resource::Resource};
#[derive(Debug,Clone)] pub struct LabelSelector(String);
impl LabelSelector { pub fn parse(t:&str)->Result<Self,ApiError>{Ok(Self(t.to_owned()))} pub fn matches(&self,l:&BTreeMap<String,String>)->bool{ self.0.is_empty() || self.0.split_once('=').is_some_and(|(k,v)| l.get(k).is_some_and(|x| x==v)) } pub fn is_empty(&self)->bool{self.0.is_empty()} pub fn of_object(_:&Value)->Result<Self,ApiError>{Ok(Self(String::new()))} }
impl std::fmt::Display for LabelSelector { fn fmt(&self,f:&mut std::fmt::Formatter<'_>)->std::fmt::Result{f.write_str(&self.0)} }
#[derive(Debug,Clone)] pub struct FieldSelector(String);
impl FieldSelector { pub fn parse(t:&str,_:&Resource)->Result<Self,ApiError>{Ok(Self(t.to_owned()))} pub fn matches(&self,_:&Object)->bool{true} pub fn is_empty(&self)->bool{self.0.is_empty()} }
